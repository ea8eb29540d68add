"""`safecomm data safety` refuses what it can't use before anything starts."""

import sys
from pathlib import Path

import pytest

from safecomm.cli import main

TYPED = ["safecomm", "data", "safety", "--model", "lab://aligned"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "lab-harm=own.csv:a:b"], "name one column, that of the prompts"),
        (["--prompts", "lab-harn"], "did you mean lab-harm"),
        (["--prompts", "lab-telecom"], "lab-telecom: its prompts are not harmful"),
        (["--prompts", "own=missing.csv:request"], "--prompts own: missing.csv: there is no such file"),
        (["--prompts", "lab-harm", "--judge", "refusals"], "--judge refusals"),
        (["--prompts", "lab-harm", "--out", "there.jsonl"], "--out there.jsonl: exists already"),
    ],
)
def test_a_mistake_gets_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.jsonl").touch()
    out = [] if "--out" in words else ["--out", "safety.jsonl"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*TYPED, *words, *out])
    with pytest.raises(SystemExit) as ended:
        main()
    errors = capsys.readouterr().err.strip()
    assert (ended.value.code, len(errors.splitlines())) == (2, 1), errors
    assert message in errors
    assert not (tmp_path / "safety.jsonl").exists()
