"""Runs the command line in this process."""

import sys
from pathlib import Path

import pytest

from safecomm.cli import main


def safecomm(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Runs `safecomm` with these words and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["safecomm", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
