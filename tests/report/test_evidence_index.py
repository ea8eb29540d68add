"""The index and the card of an evidence pack: what they claim of a release, and what they say was not measured."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from safecomm.report.pack.contents import FILES
from safecomm.report.pack.write import write_pack
from safecomm.report.points import rate_in
from safecomm.report.release import Release, released
from safecomm.report.run import read_run
from safecomm.storage.names import REPORT_ANSWERS


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


def test_every_heading_has_an_answer_or_says_that_there_is_none(pack: Path) -> None:
    for line in (pack / "INDEX.md").read_text().splitlines():
        if line.startswith("| ") and "| - |" in line:
            assert "not measured" in line or "not stated" in line or "not part of" in line


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
