"""A run's results as JSON values, for programs."""

import json
from dataclasses import asdict
from typing import Any

from safecomm.report.arms import arm_answers, arm_differences
from safecomm.report.best_of_n import try_curves
from safecomm.report.certificate import read_certificate
from safecomm.report.drift import generations
from safecomm.report.run import Run, headline
from safecomm.report.tampering import tamper_curves
from safecomm.report.worst_case import worst_cases
from safecomm.storage.store import without_nan


def as_json(run: Run) -> dict[str, Any]:
    """Returns what `safecomm report` prints: every arm's best point with its rates on the report split.

    Returns:
        `run`, `target_asr`, `judges`, `recommended` (as in pareto.json), `certificate` (as in certificate.json, or
        null), `warnings`, and `arms`, each with `arm`, `point`, `settings`, `seeds`, `recommended`, `meets_target`,
        `rates` (metric -> value, low, high, n, unscored) and `corrected` (for the judge's errors); `tamper`,
        `best_of_n` and `multi_turn`, the curves of further training, of several tries and of conversations;
        `worst_cases` of further training; `drift`, the later generations; and `differences` between the arms, each with
        whether it `is_decided`.
    """
    rows, curves = headline(run), try_curves(run)
    arms = [
        {
            "arm": row.arm,
            "point": json.loads(row.point),
            "settings": row.settings,
            "seeds": int(row.seeds),
            "recommended": row.recommended,
            "meets_target": row.meets_target,
            "rates": {metric: asdict(rate) for metric, rate in row.rates.items()},
            "corrected": {name: asdict(rate) for name, rate in row.corrected.items()},
        }
        for row in rows
    ]
    found: dict[str, Any] = without_nan(
        {
            "run": run.sweep["name"],
            "target_asr": run.sweep["search"]["target_asr"],
            "judges": run.judge_names,
            "recommended": run.outcome["recommended"],
            "certificate": read_certificate(run.folder),
            "warnings": list(run.warnings),
            "arms": arms,
            "best_of_n": [asdict(curve) for curve in curves if curve.unit == "try"],
            "multi_turn": [asdict(curve) for curve in curves if curve.unit == "turn"],
            "tamper": [asdict(curve) for curve in tamper_curves(run)],
            "worst_cases": [asdict(one) for one in worst_cases(run)],
            "differences": [
                asdict(one) | {"is_decided": one.is_decided} for one in arm_differences(run, arm_answers(run, rows))
            ],
            "drift": [asdict(one) for one in generations(run)],
        }
    )
    return found
