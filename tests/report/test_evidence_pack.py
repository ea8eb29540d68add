"""The evidence pack: complete, checksummed, valid in its formats, and equal to the run that it is about."""

import base64
import hashlib
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard
from jsonschema import Draft202012Validator
from loopback import serving

from safecomm.cli import main
from safecomm.errors import UsageError
from safecomm.report.pack.contents import FILES
from safecomm.report.pack.push import push as upload
from safecomm.report.pack.write import write_pack
from safecomm.report.points import rate_in
from safecomm.report.release import Release, released
from safecomm.report.run import read_run
from safecomm.storage.names import REPORT_ANSWERS

FORMAT = Draft202012Validator(json.loads((Path(__file__).parent / "inspect_log_schema.json").read_text()))
POLICY = "rules:\n  - {metric: asr, max: 0.9}\n  - {metric: accuracy, min: 0.99, tier: advisory}\n"


def safecomm(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["safecomm", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="session")
def release(unchanged_run: Path) -> Release:
    return released(read_run(unchanged_run), "safe_merge", 0)


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "gate.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="session")
def pack(release: Release, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack of a run; tests change copies of it."""
    out = tmp_path_factory.mktemp("packs") / "pack"
    write_pack(release.run.folder, "safe_merge", 0, out, policy)
    return out


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


def test_the_index_lists_every_file_and_links_only_files_that_exist(pack: Path) -> None:
    index = (pack / "INDEX.md").read_text()
    present = {path.name for path in pack.iterdir()} - {"manifest.json"}
    assert present == set(FILES) - {"certificate.json", "plan.json", REPORT_ANSWERS}, "which this run has not"
    for name in present:
        assert f"| [{name}]({name}) |" in index
    for name in set(FILES) - present:
        assert f"({name})" not in index


def test_the_index_says_what_was_not_measured(pack: Path, release: Release, tmp_path: Path) -> None:
    with_policy = (pack / "INDEX.md").read_text()
    assert "[gate.md](gate.md) | the verdict is GO |" in with_policy
    assert "| Measure 2.7: security and resilience | - | not measured: the sweep has no attack |" in with_policy
    assert "the run has no certificate" in with_policy
    write_pack(release.run.folder, "safe_merge", 0, tmp_path / "without")
    without = (tmp_path / "without" / "INDEX.md").read_text()
    assert "| Manage 1.1: does the system reach its purpose, may it go on | - | not measured: no policy" in without
    assert not list((tmp_path / "without").glob("gate*"))


def test_the_index_does_not_say_when_the_policy_was_written(pack: Path) -> None:
    (line,) = [line for line in (pack / "INDEX.md").read_text().splitlines() if line.startswith("| 9(8) ")]
    assert line.endswith("| the verdict is GO; whether the policy was set beforehand is not recorded |")


@pytest.mark.parametrize(("labelled", "said"), [("safe_merge", "2"), ("safe_instruct", "none")])
def test_human_labels_count_for_the_exported_adapter_only(
    with_adapters: Path, labelled: str, said: str, tmp_path: Path
) -> None:
    evaluation = released(read_run(with_adapters), labelled, 0).trial["evaluation"]
    drawn = {f"{evaluation}:{row}": False for row in (3, 4)}
    people = {"file": "people.csv", "digest": "d", "judges": {}, "drawn": drawn}
    (with_adapters / "judges.json").write_text(json.dumps(people))
    sweep = json.loads((with_adapters / "sweep.json").read_text())
    sweep["evaluate"]["labels"] = "people.csv"
    (with_adapters / "sweep.json").write_text(json.dumps(sweep))
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    index = (tmp_path / "pack" / "INDEX.md").read_text()
    assert f"judges: refusal; their errors: not measured; human labels of this adapter's answers: {said} |" in index


def test_only_judges_that_were_measured_count_as_such(with_adapters: Path, labelled_run: Path, tmp_path: Path) -> None:
    for name in ("sweep.json", "judges.json"):
        shutil.copy(labelled_run / name, with_adapters)
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    index = (tmp_path / "pack" / "INDEX.md").read_text()
    assert "their errors: measured for refusal, on other responses with human labels; human labels of" in index


@pytest.mark.parametrize(("arm", "measured"), [("safe_merge", True), ("safe_instruct", False)])
def test_the_index_says_whether_later_generations_were_measured(
    with_adapters: Path, arm: str, measured: bool, tmp_path: Path
) -> None:
    before = read_run(with_adapters)
    later = {"split": "drift", "generation": 1, "start": "continue", "policy": "never", "order": 0, "applied": ""}
    later |= {"overlap": math.nan, "asked": 0, "trained_seconds": 3.0, "trial": "g1"}
    trial = pd.DataFrame([dict(released(before, "safe_merge", 0).trial) | later])
    pd.concat([pd.read_parquet(with_adapters / "trials.parquet"), trial]).to_parquet(with_adapters / "trials.parquet")
    sweep = before.sweep | {"drift": {"generations": [[{"name": "lab-telecom"}]], "policies": ["never"]}}
    (with_adapters / "sweep.json").write_text(json.dumps(sweep))
    (with_adapters / "report.html").write_text("the report")
    write_pack(with_adapters, arm, 0, tmp_path / "pack")
    lines = (tmp_path / "pack" / "INDEX.md").read_text().splitlines()
    (further,) = [line for line in lines if line.startswith("| 15(4) Robustness after retraining |")]
    (lifecycle,) = [line for line in lines if line.startswith("| 6 Changes through the lifecycle |")]
    if measured:
        assert further.endswith(
            "| [report.html](report.html) | later generations of this arm were measured (section `drift`) |"
        )
        assert lifecycle.endswith("later generations of this arm were measured (section `drift`) |")
    else:
        assert further.endswith("| - | not measured: no later generation of this arm |")
        assert lifecycle.endswith("not measured: no later generation of this arm |")


def test_a_certificate_is_named_for_its_own_adapter_only(with_adapters: Path, tmp_path: Path) -> None:
    release = released(read_run(with_adapters), "safe_merge", 0)
    candidate = {"arm": "safe_merge", "seed": 0, "adapter": release.trial["adapter"], "tests": []}
    found = {"confidence": 0.95, "look": 1, "level": 0.025, "released": candidate, "judge": "", "reason": ""}
    for adapter, said in ((release.trial["adapter"], "this adapter is certified"), ("x", "this adapter is not cert")):
        found["released"]["adapter"] = adapter
        (with_adapters / "certificate.json").write_text(json.dumps(found))
        write_pack(with_adapters, "safe_merge", 0, tmp_path / str(adapter))
        assert said in (tmp_path / str(adapter) / "INDEX.md").read_text()


def test_card_and_index_quote_no_prompt_and_say_where_they_are(pack: Path) -> None:
    samples = pd.read_parquet(pack / "samples.parquet")
    for name in ("README.md", "INDEX.md"):
        text = (pack / name).read_text()
        assert "harmful prompts" in text and "samples.parquet" in text
        assert not [prompt for prompt in set(samples["prompt"]) if prompt in text]


def test_the_cards_metadata_has_this_adapters_rates(pack: Path, release: Release) -> None:
    data = ModelCard.load(pack / "README.md").data
    assert data.library_name == "peft" and data.license == "other" and data.license_name
    assert data.base_model is None and data.datasets is None, "the Hub refuses ids that it does not have"
    measured = {(one.metric_type, one.dataset_name): one for one in data.eval_results}
    assert {("asr", "lab-harm"), ("accuracy", "lab-teleqna"), ("over_refusal", "lab-borderline")} < set(measured)
    for (metric, benchmark), one in measured.items():
        rate = rate_in(release.trial, f"{metric}/{benchmark}")
        assert one.metric_value == pytest.approx(rate.value, abs=1e-4) and one.metric_args["n"] == rate.n
        assert one.metric_args["interval_95"] == pytest.approx([rate.low, rate.high], abs=1e-4)


def test_ids_of_the_hub_and_restricted_licences_are_on_the_card(with_adapters: Path, tmp_path: Path) -> None:
    sweep = json.loads((with_adapters / "sweep.json").read_text())
    sweep["model"] = {"base": "acme/Base-8B", "aligned": "acme/Chat-8B@v2"}
    sweep["finetune"] = {"data": [{"name": "pubmedqa"}], "safety_data": {"name": "safety-tuned-llamas"}}
    (with_adapters / "sweep.json").write_text(json.dumps(sweep))
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    card = ModelCard.load(tmp_path / "pack" / "README.md")
    assert card.data.base_model == "acme/Chat-8B" and card.data.license_link == "https://huggingface.co/acme/Chat-8B"
    assert card.data.datasets and all("/" in name for name in card.data.datasets)
    assert "not for commercial use (safety-tuned-llamas)" in card.text
    bill = json.loads((tmp_path / "pack" / "bom.cdx.json").read_text())
    purls = {one.get("purl") for one in bill["metadata"]["component"]["pedigree"]["ancestors"]}
    assert {"pkg:huggingface/acme/Chat-8B@v2", "pkg:huggingface/acme/Base-8B"} < purls
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None


def test_the_bill_is_valid_and_names_what_the_adapter_is_made_of(pack: Path, release: Release) -> None:
    text = (pack / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace("modelCard", "modelcard")), "it is strict"
    bill = json.loads(text)
    adapter, parts = bill["metadata"]["component"], {one["bom-ref"]: one for one in bill["components"]}
    assert adapter["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"weights").hexdigest()}]
    ancestors = {one["bom-ref"] for one in adapter["pedigree"]["ancestors"]}
    assert ancestors == {"fine-tune", "aligned-model", "base-model"}
    assert adapter["pedigree"]["notes"] == "realign r <- finetune f <- data d"
    metrics = adapter["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (asr,) = [one for one in metrics if one["type"] == "asr"]
    assert float(asr["value"]) == pytest.approx(rate_in(release.trial, "asr/lab-harm").value, abs=1e-4)
    assert "hashes" in parts["chat-template"] and parts["software-torch"]["version"]
    assert parts["dataset-lab-teleqna"]["licenses"] == [{"license": {"name": "set by its owner"}}]


def test_versions_are_those_of_the_run_where_it_recorded_them(with_adapters: Path, tmp_path: Path) -> None:
    for at, torch in enumerate(("9.1.0", "9.0.0")):
        files = with_adapters / "wandb" / f"offline-run-{at}" / "files"
        files.mkdir(parents=True)
        (files / "requirements.txt").write_text(f"torch=={torch}\npeft==7.0\nother @ file:///x\n")
    write_pack(with_adapters, "safe_merge", 0, tmp_path / "pack")
    text = (tmp_path / "pack" / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    software = {one["name"]: one for one in json.loads(text)["components"] if one["bom-ref"].startswith("software")}
    assert software["torch"]["version"] == "9.0.0, 9.1.0" and software["peft"]["purl"] == "pkg:pypi/peft@7.0"
    (origin,) = software["peft"]["properties"]
    assert origin["value"] == "recorded during the run"
    assert software["trl"]["properties"] == [{"name": origin["name"], "value": "installed where the pack was written"}]


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
    assert (pack / "policy.yaml").read_text() == POLICY
    assert (pack / "gate.md").read_text().startswith("# GO") and "<testsuites" in (pack / "gate.xml").read_text()


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


def test_every_heading_has_an_answer_or_says_that_there_is_none(pack: Path) -> None:
    for line in (pack / "INDEX.md").read_text().splitlines():
        if line.startswith("| ") and "| - |" in line:
            assert "not measured" in line or "not stated" in line or "not part of" in line


@pytest.fixture
def visibility() -> dict[str, str]:
    """The repositories of the Hub on loopback: path of the API -> private or public."""
    return {}


@pytest.fixture
def hub(visibility: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The parts of the Hub's API that an upload uses, on loopback; yields path -> the content that arrived."""
    arrived: dict[str, bytes] = {}

    def reply(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        answer: object = {}
        missing = False
        known = request.headers.get("Authorization") == "Bearer hf_right"
        if request.path.endswith("/whoami-v2"):
            answer = {"name": "acme", "type": "user"}
        elif request.path.endswith("/repos/create"):
            visibility.setdefault("/api/models/acme/safe", json.loads(body)["visibility"])
            answer = {"url": f"http://{request.headers['Host']}/acme/safe", "name": "acme/safe"}
        elif "/preupload/" in request.path:
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            answer = {"files": [one | {"shouldIgnore": False} for one in files]}
        elif "/commit/" in request.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    arrived[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {
                "commitUrl": f"http://{request.headers['Host']}/acme/safe/commit/1",
                "commitOid": "1" * 40,
                "success": True,
            }
        elif request.path.startswith("/api/models/"):
            missing = request.path not in visibility
            answer = {"id": "acme/safe", "private": visibility.get(request.path) == "private"}
        content = json.dumps(answer).encode()
        request.send_response(404 if missing else 200 if known else 401)
        if missing:
            request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    with serving(reply) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield arrived


def push(release: Release, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    words = ("--arm", "safe_merge", "--evidence", out, "--push", "acme/safe", "--yes")
    return safecomm(monkeypatch, "export", release.run.folder, *words)


def test_push_uploads_every_file_unchanged(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert push(release, tmp_path / "pack", monkeypatch) == 0
    assert "uploaded to" in capsys.readouterr().out
    files = {p.relative_to(tmp_path / "pack").as_posix(): p for p in (tmp_path / "pack").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == hub
    assert visibility == {"/api/models/acme/safe": "private"}, "a new repository is private"


def test_push_with_yes_refuses_a_public_repository_before_it_writes(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    assert push(release, tmp_path / "pack", monkeypatch) == 2
    told = capsys.readouterr().err
    assert "acme/safe is PUBLIC" in told and "hf repos settings acme/safe --private" in told and told.count("\n") == 1
    assert hub == {} and not (tmp_path / "pack").exists()


@pytest.mark.parametrize(("answer", "uploads"), [("y", True), ("n", False), ("", False)])
def test_push_to_a_public_repository_takes_a_yes_to_a_question_that_says_so(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    answer: str,
    uploads: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    words = ("--arm", "safe_merge", "--evidence", tmp_path / "pack", "--push", "acme/safe")
    assert safecomm(monkeypatch, "export", release.run.folder, *words) == 0
    assert "to the PUBLIC repository acme/safe?" in capsys.readouterr().out
    assert bool(hub) == uploads and (tmp_path / "pack" / "INDEX.md").is_file()


def test_a_repository_that_became_public_after_the_question_gets_nothing(
    pack: Path, hub: dict[str, bytes], visibility: dict[str, str]
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    with pytest.raises(UsageError, match="acme/safe is PUBLIC"):
        upload(pack, "acme/safe", public=False)
    assert hub == {}


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [("", 2, "there is no token for http"), ("hf_wrong", 1, "the Hub answered 401")],
)
def test_push_without_access_is_one_line_and_writes_nothing(
    release: Release,
    hub: dict[str, bytes],
    token: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert push(release, tmp_path / "pack", monkeypatch) == code
    told = capsys.readouterr().err
    assert said in told and "hf auth login" in told and told.count("\n") == 1
    assert not (tmp_path / "pack").exists() and hub == {}


def test_push_without_a_network_is_one_line(
    release: Release,
    hub: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert push(release, tmp_path / "pack", monkeypatch) == 1
    told = capsys.readouterr().err
    assert "the Hub can't be reached" in told and told.count("\n") == 1
