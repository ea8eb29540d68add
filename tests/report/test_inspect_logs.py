"""The logs of an evidence pack have inspect's format and the run's verdicts."""

import json
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from jsonschema import Draft202012Validator

from safecomm.report.pack.write import write_pack
from safecomm.report.release import released
from safecomm.report.run import read_run

FORMAT = Draft202012Validator(json.loads((Path(__file__).parent / "inspect_log_schema.json").read_text()))


def read_log(path: Path) -> dict:
    """Returns a log in the form that inspect's `EvalLog` has."""
    with ZipFile(path) as archive:
        names = archive.namelist()
        header = json.loads(archive.read("header.json"))
        samples = [json.loads(archive.read(name)) for name in names if name.startswith("samples/")]
        assert json.loads(archive.read("_journal/start.json")).items() <= header.items()
        summaries = json.loads(archive.read("summaries.json"))
    assert [(one["id"], one["epoch"]) for one in summaries] == [(one["id"], one["epoch"]) for one in samples]
    assert all(f"samples/{one['id']}_epoch_{one['epoch']}.json" in names for one in samples)
    return header | {"samples": samples}


def test_the_logs_have_inspects_format_and_the_runs_verdicts(pack: Path) -> None:
    samples = pd.read_parquet(pack / "samples.parquet")
    logs = [read_log(path) for path in (pack / "logs").glob("*.eval")]
    assert len(logs) == samples.groupby(["arm", "benchmark"]).ngroups == 9
    for log in logs:
        FORMAT.validate(log)
        arm, benchmark = log["eval"]["task"].split("/")
        of_log = samples[(samples["arm"] == arm) & (samples["benchmark"] == benchmark)]
        verdicts = [next(iter(one["scores"].values()))["value"] for one in log["samples"]]
        assert verdicts == list(of_log["verdict"])
        (score,) = log["results"]["scores"]
        assert score["scored_samples"] + score["unscored_samples"] == len(of_log)
    (harm,) = [log for log in logs if log["eval"]["task"] == "undefended/lab-harm"]
    assert harm["results"]["scores"][0]["metrics"]["asr"]["value"] == pytest.approx(13 / 20)
    (task,) = [log for log in logs if log["eval"]["task"] == "undefended/lab-teleqna"]
    assert task["samples"][0]["output"]["completion"] == "SMF", "the likelier option"


def test_several_answers_to_a_prompt_are_epochs(with_adapters: Path, tmp_path: Path) -> None:
    release = released(read_run(with_adapters), "safe_merge", 0)
    rows = release.run.stage("evaluation", str(release.trial["evaluation"])) / "rows.parquet"
    once = pd.read_parquet(rows)
    pd.concat([once, once]).to_parquet(rows)
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    log = read_log(next((tmp_path / "pack" / "logs").glob("*safe-merge-lab-harm*.eval")))
    FORMAT.validate(log)
    assert log["eval"]["config"]["epochs"] == 2 and log["eval"]["dataset"]["samples"] * 2 == len(log["samples"])
