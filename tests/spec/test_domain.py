"""A sweep's domain; files that use the former key `evaluate.telecom` are still read."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from safecomm.errors import SpecError
from safecomm.judging.forms import Exchange, form_of
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep, read_sweep

EVALUATE = {"red_team": ["lab-harm"], "task": ["lab-telecom"]}
LEAST = {
    "name": "least",
    "model": {"base": "lab://base", "aligned": "lab://aligned"},
    "finetune": {"data": ["lab-telecom"]},
    "arms": {},
    "evaluate": EVALUATE,
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(LEAST | changes))
    return path


def former(folder: Path) -> Path:
    return written(folder, evaluate={"red_team": ["lab-harm"], "telecom": ["lab-telecom"]})


def question(sweep: Sweep) -> str:
    """Returns what the sweep's grader is asked."""
    assert sweep.evaluate.grader is not None
    return str(form_of(sweep.evaluate.grader).question(Exchange("Which?", "This", "That"))["messages"][0]["content"])


def test_former_key_is_read_as_task_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sweep = read_sweep(former(tmp_path))
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "evaluate.telecom is now called evaluate.task" in record.getMessage()
    assert sweep == read_sweep(written(tmp_path))
    assert set(sweep.resolved()["evaluate"]) >= {"task"} and "telecom" not in sweep.resolved()["evaluate"]


@pytest.mark.parametrize("file", [former, written])
@pytest.mark.parametrize("key", ["evaluate.telecom", "evaluate.task"])
def test_both_names_override_both_files(file: Callable[[Path], Path], key: str, tmp_path: Path) -> None:
    sweep = read_sweep(file(tmp_path), [f"{key}.0.limit=7"])
    assert sweep.evaluate.task[0].limit == 7 and sweep.evaluate.task[0].name == "lab-telecom"


def test_file_with_both_names_is_rejected(tmp_path: Path) -> None:
    both = written(tmp_path, evaluate=EVALUATE | {"telecom": ["lab-telecom"]})
    with pytest.raises(SpecError, match=r"evaluate\.telecom: there is no such key"):
        read_sweep(both)


def test_grader_rubric_names_the_domain_and_custom_rubrics_stay(tmp_path: Path) -> None:
    grader = {"grader": {"model": "lab://grader"}}
    telecom = read_sweep(written(tmp_path, evaluate=EVALUATE | grader))
    assert telecom.evaluate.grader and telecom.evaluate.grader.rubric is None, "earlier verdicts are kept under this"
    assert "gave to a telecommunications question with" in question(telecom)
    medical = read_sweep(written(tmp_path, domain="medical", evaluate=EVALUATE | grader))
    assert "gave to a medical question with" in question(medical) and "telecom" not in question(medical)
    (tmp_path / "sweep.json").write_text(yaml.safe_dump(medical.resolved()))
    assert read_sweep(tmp_path / "sweep.json") == medical
    own = {"grader": {"model": "lab://grader", "rubric": "{response} {reference}?"}}
    assert question(read_sweep(written(tmp_path, domain="medical", evaluate=EVALUATE | own))) == "This That?"


def test_domain_titles_do_not_change_store_keys(tmp_path: Path) -> None:
    contexts = {
        domain: RunFolder(read_sweep(written(tmp_path, domain=domain, storage=str(tmp_path))))._context
        for domain in ("telecom", "medical")
    }
    assert contexts["telecom"] == contexts["medical"]


@pytest.mark.parametrize("domain", ["", "two\nlines", "<b>", "x" * 41])
def test_domain_must_be_words(domain: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="domain: "):
        read_sweep(written(tmp_path, domain=domain))
