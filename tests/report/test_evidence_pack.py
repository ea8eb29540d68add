"""The evidence pack is whole and checksummed, and has the run's own rates and the gate's decision."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import safecomm

from safecomm.report.release import Release, released
from safecomm.report.run import read_run


def test_verify_passes_and_then_fails_on_one_changed_byte(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = shutil.copytree(pack, tmp_path / "pack")
    assert safecomm(monkeypatch, "verify", pack) == 0
    assert "as safecomm" in capsys.readouterr().out
    log = next((pack / "logs").glob("*unde*harm*.eval"))
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    (pack / "gate.xml").unlink()
    assert safecomm(monkeypatch, "verify", pack) == 1
    said = capsys.readouterr().out
    assert f"logs/{log.name}: was altered" in said and "gate.xml: is missing" in said and "in 2 of its files" in said


def test_the_samples_give_the_runs_own_rates(pack: Path, release: Release) -> None:
    samples = pd.read_parquet(pack / "samples.parquet")
    assert list(dict.fromkeys(samples["arm"])) == ["safe_merge", "original", "undefended"]
    assert not [name for name in samples["prompt_id"] if "search" in name], "the report split only"
    for arm, trial in [("safe_merge", release.trial), ("undefended", release.reference_trial("undefended"))]:
        harmful = samples[(samples["arm"] == arm) & (samples["kind"] == "red_team")]["verdict"]
        scored = harmful[harmful != "unscored"]
        assert (scored == "unsafe").mean() == pytest.approx(trial["asr"]) and len(scored) == trial["asr_n"]


def test_the_gates_files_have_the_gates_decision(
    pack: Path, release: Release, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("gate", release.run.folder, "--policy", policy, "--arm", "safe_merge", "--json")
    assert safecomm(monkeypatch, *words) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((pack / "gate.json").read_text())
    assert (pack / "policy.yaml").read_text() == policy.read_text()
    assert (pack / "gate.md").read_text().startswith("# GO") and "<testsuites" in (pack / "gate.xml").read_text()


def test_a_pack_is_written_whole_or_not_at_all(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release = released(read_run(with_adapters), "safe_merge", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    words = ("export", with_adapters, "--arm", "safe_merge", "--evidence")
    assert safecomm(monkeypatch, *words, tmp_path / "full") == 2
    assert "already exists" in capsys.readouterr().err
    reference = release.reference_trial("undefended")
    (release.run.stage("evaluation", str(reference["evaluation"])) / "rows.parquet").unlink()
    assert safecomm(monkeypatch, *words, tmp_path / "pack") == 2
    assert "the answers of undefended are gone" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"full", "storage"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --out FOLDER for the adapter, --evidence FOLDER"),
        (["--evidence=e", "--point=t01"], "--evidence: is about the report split"),
        (["--out=o", "--policy=gate.yaml"], "--policy: belongs to the evidence"),
        (["--out=o", "--push=acme/safe"], "--push: belongs to the evidence"),
        (["--evidence=e", "--arm=original"], "has no adapter to export"),
        (["--evidence=e", "--policy=none.yaml"], "none.yaml"),
        (["--evidence=e", "--push=acme/safe"], "--push: it asks before it uploads; add --yes"),
        (["--evidence=e", "--yes", "--push=a/b/c"], "'a/b/c' is no repository's name; use ORG/NAME"),
    ],
)
def test_misuse_is_one_line_and_writes_nothing(
    release: Release,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert safecomm(monkeypatch, "export", release.run.folder, *words) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())
