"""Says in one line who judged a run's answers, when they were made, and how long that took."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from safecomm.errors import UsageError
from safecomm.report.run import Headline, Run
from safecomm.report.run_files import read_json
from safecomm.storage.names import LINEAGE, MODELS
from safecomm.storage.store import lineage


def provenance(run: Run, rows: Sequence[Headline]) -> str:
    """Returns the line for the answers of the headline table."""
    first, *others = run.sweep["evaluate"]["judges"]
    revisions = model_versions(run)
    judged = f"Harmful answers judged by {_judge(first, revisions)}"
    if others:
        judged += f", which decides, and {', '.join(_judge(one, revisions) for one in others)}"
    return "; ".join([judged, *_further(run, revisions), _when(run, rows), _duration(run)]) + "."


def _judge(judge: Any, revisions: Mapping[str, str]) -> str:
    """Returns a judge's name with its model and the model's version."""
    if not isinstance(judge, dict):
        return str(judge)
    model = str(judge.get("model") or "")
    if not model:
        return f"{judge.get('name')} ({'own code' if judge.get('own') else 'no model'})"
    version = f"@{revisions[model]}" if revisions.get(model) else ""
    found = f"{model}{version}{' on a server' if judge.get('url') else ''}"
    return f"{judge['name']} ({found})" if judge.get("name") else found


def _further(run: Run, revisions: Mapping[str, str]) -> list[str]:
    """Returns who judged the other answers, where that is no fixed rule."""
    evaluate = run.sweep["evaluate"]
    kinds = {
        "refusal_judge": "answers to harmless prompts",
        "grader": f"{run.domain.name} answers",
        "attacker": "conversations",
    }
    return [f"{what} by {_judge(evaluate[key], revisions)}" for key, what in kinds.items() if evaluate.get(key)]


def model_versions(run: Run) -> dict[str, str]:
    """Returns model -> the first digits of its revision or, if it has none, of its files' hash."""
    try:
        found = read_json(run.folder, MODELS)
        return {str(name): str(one["revision"] or one["identity"])[:12] for name, one in found.items()}
    except (UsageError, AttributeError, KeyError, TypeError):  # written by an older version, or damaged
        return {}


def _when(run: Run, rows: Sequence[Headline]) -> str:
    keys = {str(key) for row in rows for key in run.trials_of(row.arm, row.point, "report")["evaluation"] if key}
    times = []
    for key in keys:
        with suppress(OSError, json.JSONDecodeError, KeyError):
            times.append(str(lineage(run.stage("evaluation", key))["finished"]))
    if len(times) < len(keys) or not times:
        return f"when is not recorded in {LINEAGE}"
    first, last = (time.replace("T", " ")[:16] for time in (min(times), max(times)))
    return f"measured {first} UTC" if first == last else f"measured {first} to {last} UTC"


def _duration(run: Run) -> str:
    trials = run.trials[run.trials["status"] == "done"]
    seconds = float(trials["seconds"].sum()) if "seconds" in trials else 0.0
    return f"{len(trials):,} measurements took {_time(seconds)} together" if seconds else "how long is not recorded"


def _time(seconds: float) -> str:
    """Returns a duration in the largest unit that fits."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
