"""On a terminal the verdicts of the gate have a colour, and nothing else has; the words stay the same without one."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

COLOUR = re.compile(r"\x1b\[([0-9;]*)m")


def printed(run: Path, limit: str, **environment: str) -> str:
    """Returns what the gate prints on a terminal."""
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "safecomm", "gate", str(run), "--arm=safe_merge", f"--max-asr={limit}"]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    with subprocess.Popen(command, stdout=inner, env=kept | {"TERM": "xterm"} | environment):
        os.close(inner)
        parts = []
        while True:
            try:
                part = os.read(terminal, 10_000)
            except OSError:  # Linux's end of a terminal that nobody writes to
                part = b""
            if not part:
                break
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(("limit", "verdict", "colour"), [("0.9", "GO", "32"), ("0.001", "NO-GO", "31")])
def test_verdicts_alone_have_a_colour(unchanged_run: Path, limit: str, verdict: str, colour: str) -> None:
    said = printed(unchanged_run, limit)
    styled = [(code, text) for code, text in re.findall(r"\x1b\[([0-9;]+)m([^\x1b]*)\x1b\[0m", said)]
    assert [(code, text.strip()) for code, text in styled] == [(colour, verdict), (f"1;{colour}", verdict)]
    plain = printed(unchanged_run, limit, NO_COLOR="1")
    assert COLOUR.sub("", plain) == COLOUR.sub("", said) and colour not in {
        part for codes in COLOUR.findall(plain) for part in codes.split(";")
    }
