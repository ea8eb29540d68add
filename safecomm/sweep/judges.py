"""Measures a sweep's judges once against the human labels in `evaluate.labels`."""

import json
from dataclasses import asdict
from pathlib import Path

from safecomm.judging.labels import Labelled, measured_judges
from safecomm.judging.model_judge import Panel
from safecomm.report.run_files import read_json
from safecomm.spec import Sweep
from safecomm.storage import shared
from safecomm.storage.checksums import file_digest
from safecomm.storage.names import JUDGES
from safecomm.storage.store import without_nan, write_json
from safecomm.storage.versions import version
from safecomm.sweep.stages import Stages


def measure_judges(stages: Stages, run: Path) -> None:
    """Writes a run's `judges.json` if the sweep has labels; judge models run on their fleets.

    The file has the labels' `file` and `digest`, and for each judge, the deciding one first, the rates `sensitivity`
    and `specificity`; if the labels were drawn from a run, `drawn` instead: answer -> whether it is unsafe.
    """
    evaluate = stages.sweep.evaluate
    if evaluate.labels is None:
        return
    labels, panel = Path(evaluate.labels), Panel(evaluate.judges, models=stages.judge_models)
    labelled = Labelled.read(labels)

    def make(out: Path) -> None:
        judges = panel.seated(stages.store, evaluate.engine).judges
        found = measured_judges(judges, labelled)
        write_json(out / JUDGES, without_nan({name: asdict(one) for name, one in found.items()}))

    key = {
        "labels": file_digest(labels),
        "judges": panel.as_key(),
        "engine": evaluate.engine,
        "version": version("replies", "judges"),
    }
    found = json.loads((stages.store.obtain("judges", key, make) / JUDGES).read_text(encoding="utf-8"))
    drawn = {"drawn": labelled.drawn} if labelled.drawn else {}
    write_json(run / JUDGES, {"file": str(labels), "digest": key["labels"], "judges": found, **drawn})
    shared.publish(run / JUDGES)


def judges_are_measured(sweep: Sweep, run: Path) -> bool:
    """Returns whether `judges.json` matches the sweep's labels; True if it has none."""
    if sweep.evaluate.labels is None:
        return True
    labels = Path(sweep.evaluate.labels)
    if not (run / JUDGES).is_file() or not labels.is_file():
        return False
    measured = read_json(run, JUDGES)
    return isinstance(measured, dict) and measured.get("digest") == file_digest(labels)
