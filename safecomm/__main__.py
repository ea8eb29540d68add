"""Makes `python -m safecomm` equivalent to the `safecomm` script."""

from safecomm.cli import main

main()
