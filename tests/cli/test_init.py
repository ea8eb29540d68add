"""`safecomm init` writes sweeps that plan, and never replaces a file without being told to."""

import itertools
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import safecomm

from safecomm.cluster.session import Resources
from safecomm.errors import UsageError
from safecomm.plan.placement import least_gpus
from safecomm.plan.plan import make_plan
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import read_sweep
from safecomm.spec.first_sweep import Given, quoted
from safecomm.spec.json_schema import sweep_schema

LLAMA = ["--base", "meta-llama/Llama-3.1-8B", "--aligned", "meta-llama/Llama-3.1-8B-Instruct"]


@pytest.mark.parametrize(
    ("words", "gpus", "judge"),
    [
        ([], 0, "compliance"),
        ([*LLAMA], 0, "refusal"),
        ([*LLAMA, "--gpus", "1"], 1, "refusal"),
        ([*LLAMA, "--gpus", "3"], 3, "llama-guard-3"),
        ([*LLAMA, "--gpus", "8", "--data", "teleqna", "--benchmark", "advbench"], 8, "llama-guard-3"),
    ],
    ids=["laptop", "laptop-8b", "one-gpu", "three-gpus", "eight-gpus"],
)
def test_what_it_writes_plans_on_the_gpus_that_were_named(
    words: list[str], gpus: int, judge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "first.yaml"
    assert safecomm(monkeypatch, "init", *words, "--out", out) == 0
    assert out.read_text().startswith("# yaml-language-server: $schema=sweep.schema.json\n")
    assert (tmp_path / "sweep.schema.json").is_file()
    sweep = read_sweep(out)
    equivalent = EquivalentPoints(sweep, ProfileCache(sweep))
    assert not gpus or least_gpus(sweep, equivalent) <= gpus
    plan = make_plan(sweep, Resources(cpus=2, gpus=gpus), equivalent, fetch=False)
    assert set(plan.arms) == {"original", "undefended", "safe_instruct", "safe_lora", "safe_merge"}
    assert sweep.evaluate.judges[0].name == judge and all(sweep.evaluate.datasets)


def test_data_and_benchmarks_go_where_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my data.csv").write_text("question,reply\na,b\n")
    data = f"acme={tmp_path / 'my data.csv'}:question:reply"
    benchmarks = ["xstest=XSTest/prompts.csv", "lab-harm", "oran-bench-13k"]
    given = itertools.chain.from_iterable(("--benchmark", one) for one in benchmarks)
    assert safecomm(monkeypatch, "init", *LLAMA, "--data", data, *given, "--out", tmp_path / "a.yaml") == 0
    sweep = read_sweep(tmp_path / "a.yaml")
    (own,) = sweep.finetune.data
    assert (own.name, own.prompt, own.response, Path(own.path).name) == ("acme", "question", "reply", "my data.csv")
    names = {kind: [one.name for one in getattr(sweep.evaluate, kind)] for kind in ("red_team", "over_refusal", "task")}
    assert names == {"red_team": ["lab-harm"], "over_refusal": ["xstest"], "task": ["oran-bench-13k"]}


def test_an_existing_file_is_replaced_on_request_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("mine")
    assert safecomm(monkeypatch, "init", "--out", out) == 2
    assert "add --force to replace it" in capsys.readouterr().err and out.read_text() == "mine"
    assert safecomm(monkeypatch, "init", "--out", out, "--force") == 0
    assert read_sweep(out).name == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base", "a/b"], "--base, --aligned: give both"),
        (["--benchmark", "xtest"], "there is no dataset 'xtest'; did you mean xstest?"),
        (["--benchmark", "lab-safety"], "lab-safety is no benchmark"),
        (["--data", "xstest"], "finetune.data.0: xstest can't be used as train data"),
        (["--out", "sweep.txt"], "name a .yaml file"),
        (["--data", "acme=f.jsonl:q:a:b"], "acme=f.jsonl:q:a:b: has 3 columns; name a dataset as NAME, NAME=FILE or"),
        (["--data", "acme=f.jsonl:q:"], "acme=f.jsonl:q:: has an empty column"),
        (["--data", "acme=s3://b/k"], "acme=s3://b/k: a dataset is a local file; download it"),
    ],
)
def test_wrong_answers_are_reported_and_nothing_is_written(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert safecomm(monkeypatch, "init", *words) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        *("a: b", "- a", "#a", "yes", "1", "'", "a b", "/mnt/x", "{a}", "a, b", "null", "é", "on", "Off"),
        *("a\x7fb", "a\x80b", "a\x85b", "a \x85 b", "a\x9fb", "a\u2028b", "\ufeffa", "a\uffffb", "\U0001f600"),
    ],
)
def test_any_text_is_one_yaml_value(text: str) -> None:
    import yaml

    assert yaml.safe_load(f"{{key: {quoted(text)}, other: 1}}") == {"key": text, "other": 1}


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'/data/\\udcff\.jsonl' is not valid UTF-8"):
        quoted("/data/\udcff.jsonl")


@pytest.mark.parametrize("words", [[], LLAMA], ids=["lab", "8b"])
@pytest.mark.parametrize(("gpus", "workers"), [(3, 2), (5, 4), (6, 4), (7, 4), (12, 8)])
def test_any_number_of_gpus_gives_workers_that_share_the_batches(
    words: list[str], gpus: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "first.yaml"
    assert safecomm(monkeypatch, "init", *words, "--gpus", str(gpus), "--out", out) == 0
    cluster = read_sweep(out).cluster
    assert (cluster.gpus, cluster.finetune.workers) == (gpus, workers)


def test_a_drive_letter_is_part_of_the_file() -> None:
    assert Given.of(r"acme=C:\a.jsonl:q:a") == Given("acme", r"C:\a.jsonl", ("q", "a"))
    assert Given.of("acme=a.jsonl:q") == Given("acme", "a.jsonl", ("q",))


def test_the_schema_of_an_older_version_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = tmp_path / "sweep.schema.json"
    schema.write_text('{"title": "older"}')
    assert safecomm(monkeypatch, "init", "--out", tmp_path / "a.yaml") == 0
    assert json.loads(schema.read_text()) == sweep_schema()


def test_on_a_terminal_it_asks_for_what_is_open(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "safecomm", "init", *LLAMA, "--out", str(tmp_path / "a.yaml")]
    os.write(ours, b"tele-eval\nadvbench xstest\n1\n")
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=120)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    sweep = read_sweep(tmp_path / "a.yaml")
    assert [one.name for one in (*sweep.finetune.data, *sweep.evaluate.red_team)] == ["tele-eval", "advbench"]
    assert sweep.cluster.gpus == 1 and "Model before" not in done.stdout
