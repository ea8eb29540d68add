"""Runs the command line in this process."""

import sys
from pathlib import Path

import pytest

from safecomm.cli import BUG_EXIT_CODE, main


def safecomm(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """Runs `safecomm` with these words and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["safecomm", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    code = int(ended.value.code or 0)
    assert code != BUG_EXIT_CODE, "the command ended in a traceback"
    return code
