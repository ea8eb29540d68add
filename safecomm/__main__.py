"""Lets `python -m safecomm` do what the `safecomm` script does."""

from safecomm.cli import main

main()
