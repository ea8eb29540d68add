"""The example of docs/python.md reads a finished run."""

from pathlib import Path

import pytest
from markdown_pages import blocks


def test_the_example_that_reads_a_run_runs(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "lab").symlink_to(run_folder)
    monkeypatch.chdir(tmp_path)
    exec(blocks("docs/python.md", "python")[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("original: ") and "n=" in lines[0]
    assert "'arm'" in lines[-1]
