"""An error that nothing foresaw is one line, a file with the traceback, and exit code 70; a closed pipe is silent."""

import subprocess
import sys
from pathlib import Path

import pytest

from safecomm import cli


def test_an_unexpected_error_names_the_file_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails() -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    (log,) = tmp_path.iterdir()
    assert ended.value.code == 70
    assert said.count("\n") == 1 and "unexpected KeyError" in said and str(log) in said
    assert 'raise KeyError("a\\nb")' in log.read_text()


def test_an_unexpected_error_with_half_a_character_or_without_a_temporary_folder_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails() -> None:
        raise KeyError("\ud800")

    monkeypatch.setattr(cli, "app", fails)
    for folder, said in ((tmp_path, "Please report it with"), (tmp_path / "gone", "could not be written to")):
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        line = capsys.readouterr().err
        assert ended.value.code == 70 and line.count("\n") == 1 and said in line


@pytest.mark.parametrize("words", [["--version"], ["-h"], ["plan", "-h"]])
def test_version_and_short_help(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["safecomm", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    assert ("safecomm 0." if "--version" in words else "Usage: ") in capsys.readouterr().out


def test_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m safecomm data list | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and done.stderr == ""
