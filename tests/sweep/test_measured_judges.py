"""A sweep's judges are measured once on labelled responses, and again if labels or judges change."""

import json
from pathlib import Path

import pytest

from safecomm.errors import DataError
from safecomm.judging.labels import Labelled
from safecomm.plan.data import check_data
from safecomm.report.judges import HumanLabels, read_labels
from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep
from safecomm.storage.names import JUDGES
from safecomm.storage.store import Store
from safecomm.sweep.judges import judges_are_measured, measure_judges
from safecomm.sweep.stages import Stages

LABELS = "prompt,response,unsafe\nJam it?,Sure,yes\nJam it?,I can't help,0\nBake it?,Sure,no\nJam?,No idea,1\n"


def sweep(storage: Path, **evaluate: object) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "labelled",
            "model": {"base": "lab://base", "aligned": "lab://aligned"},
            "finetune": {"data": [{"name": "lab-telecom", "limit": 32}], "batch_size": 16},
            "arms": {},
            "evaluate": {"red_team": ["lab-harm"], "task": ["lab-telecom"], **evaluate},
            "storage": str(storage),
        }
    )


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    return path


def measured(asked: Sweep, run: Path) -> list[Path]:
    """Measures the judges and returns the stages in the store."""
    model = ModelFolder(run, "identity")
    store = Store(Path(asked.storage) / "store")
    measure_judges(Stages(asked, model, model, store, on_gpu=False), run)
    return list((store.root / "judges").glob("*"))


def test_judges_are_measured_once_and_labels_recorded(tmp_path: Path, labels: Path) -> None:
    asked = sweep(tmp_path, labels=str(labels), judges=["refusal", "compliance"])
    assert not judges_are_measured(asked, tmp_path)
    first = measured(asked, tmp_path)
    made = first[0].stat().st_mtime_ns
    (again,) = measured(asked, tmp_path)
    assert [again] == first and again.stat().st_mtime_ns == made
    assert judges_are_measured(asked, tmp_path)
    assert json.loads((tmp_path / JUDGES).read_text())["file"] == str(labels)
    found = read_labels(tmp_path).judges
    assert list(found) == ["refusal", "compliance"]
    assert (found["refusal"].sensitivity.value, found["refusal"].specificity.value) == (1.0, 0.5)


def test_unmeasurable_judge_is_null_in_the_file(tmp_path: Path, labels: Path) -> None:
    measured(sweep(tmp_path, labels=str(labels), judges=["compliance"]), tmp_path)  # needs targets, which labels lack
    found = read_labels(tmp_path).judges["compliance"].sensitivity
    assert found.value != found.value and (found.n, found.unscored) == (0, 1.0)
    assert "NaN" not in (tmp_path / JUDGES).read_text()


def test_changed_labels_or_judges_are_measured_again(tmp_path: Path, labels: Path) -> None:
    asked = sweep(tmp_path, labels=str(labels))
    measured(asked, tmp_path)
    labels.write_text(LABELS + "Jam them?,Sorry no,1\n")
    assert not judges_are_measured(asked, tmp_path)
    assert len(measured(asked, tmp_path)) == 2
    assert read_labels(tmp_path).judges["refusal"].sensitivity.n == 3
    assert len(measured(sweep(tmp_path, labels=str(labels), judges=["compliance"]), tmp_path)) == 3


def test_labels_that_were_drawn_by_verdict_measure_no_judge(tmp_path: Path) -> None:
    """Drawing by the judge's verdict distorts its sensitivity; all answers may be safe."""
    path = tmp_path / "drawn.csv"
    path.write_text("answer_id,prompt,response,unsafe\ne:0,Jam it?,Sure,0\ne:7,Jam it?,,no\n")
    measured(sweep(tmp_path, labels=str(path)), tmp_path)
    assert read_labels(tmp_path) == HumanLabels({}, {"e:0": False, "e:7": False})
    path.write_text("answer_id,prompt,response,unsafe\ne:0,Jam it?,Sure,0\ne:0,Jam it?,,no\n")
    with pytest.raises(DataError, match="a value of its own in answer_id"):
        Labelled.read(path)


def test_sweep_without_labels_measures_no_judge(tmp_path: Path) -> None:
    assert measured(sweep(tmp_path), tmp_path) == [] and read_labels(tmp_path).judges == {}
    assert judges_are_measured(sweep(tmp_path), tmp_path)


def test_labels_do_not_repeat_trials(tmp_path: Path, labels: Path) -> None:
    trial = Trial("original", {}, (), seed=0)
    RunFolder(sweep(tmp_path)).keep(TrialRecord.of(trial, "done"))
    assert RunFolder(sweep(tmp_path, labels=str(labels))).find(trial) is not None


@pytest.mark.parametrize("content", [None, "prompt,response\na,b\n", "prompt,response,unsafe\na,b,1\n"])
def test_unusable_labels_are_reported_before_anything_runs(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "people.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"^evaluate\.labels: .*people\.csv"):
        check_data(sweep(tmp_path, labels=str(path)))
