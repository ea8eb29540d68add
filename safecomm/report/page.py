"""Renders a run as one self-contained HTML page, without other files or network access."""

import json
import logging
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from safecomm.report.arms import arm_answers, arm_differences, difference_in_words, hypervolumes, ranking
from safecomm.report.best_of_n import try_tables
from safecomm.report.breakdown import breakdown
from safecomm.report.cells import plain
from safecomm.report.certificate import in_sentences, read_certificate
from safecomm.report.curves import left_out
from safecomm.report.disagreement import disagreements
from safecomm.report.drift import change_in_words, generations
from safecomm.report.explorer import MOST_INSIDE, Packed, packed
from safecomm.report.explorer import scripts as explorer_scripts
from safecomm.report.explorer import styles as explorer_styles
from safecomm.report.figures import figures
from safecomm.report.guide import guide, target_in_words
from safecomm.report.incoherence import incoherence_of, warnings
from safecomm.report.modules import read_profile
from safecomm.report.part_differences import part_differences
from safecomm.report.plots import styles
from safecomm.report.points import rows_of
from safecomm.report.provenance import provenance
from safecomm.report.run import (
    Headline,
    Run,
    benchmark_rates,
    beside_published,
    failures,
    headline,
    in_words,
    rate_in_words,
    read_run,
    settings,
    stopped,
    unscored_in_words,
)
from safecomm.report.samples import samples
from safecomm.report.tampering import tamper_curves
from safecomm.report.versions import installed_versions, recorded_versions
from safecomm.report.worst_case import worst_cases
from safecomm.spec import REFERENCE_ARMS
from safecomm.spec.published import departures
from safecomm.statistics.metric_table import ACCURACY, ASR
from safecomm.statistics.metrics import Rate, as_columns
from safecomm.storage.names import REPORT, REPORT_ANSWERS
from safecomm.storage.store import without_nan, write_text

logger = logging.getLogger(__name__)


def write_report(folder: Path, most_inside: int = MOST_INSIDE) -> Path:
    """Writes `report.html` into a run folder and returns its path.

    A page with answers is kept if the store no longer has them.

    Args:
        folder: the run folder.
        most_inside: the most bytes of compressed answers that the page holds; more go into a file beside it.

    Raises:
        UsageError: if the run folder lacks its sweep or its trials.
    """
    run = read_run(folder)
    answers = packed(run, samples(run, headline(run)), most_inside)
    path = folder / REPORT
    if not answers.answers and path.exists() and any(run.trials.get("evaluation", pd.Series(dtype=str)).fillna("")):
        logger.warning("%s is kept as it was, because the store no longer has the answers", path)
        return path
    if answers.is_beside:
        write_text(folder / REPORT_ANSWERS, answers.script)
    write_text(path, render(run, answers))
    if not answers.is_beside:
        (folder / REPORT_ANSWERS).unlink(missing_ok=True)
    return path


def render(run: Run, answers: Packed | None = None, is_final: bool = True) -> str:
    """Returns the page as HTML.

    Args:
        run: the run.
        answers: its answers, if they are packed already.
        is_final: whether all trials have ended, so that they can be certified and compared. A comparison of the first
            few arms would be corrected for too few pairs.
    """
    rows = headline(run)
    recommended = next((row for row in rows if row.recommended), None)
    answers_by_arm = arm_answers(run, rows) if is_final else {}
    differences = arm_differences(run, answers_by_arm)
    certificate = read_certificate(run.folder) if is_final else None
    profile, tries, further, later = read_profile(run), try_tables(run), tamper_curves(run), generations(run)
    return _template().render(
        run=run,
        rows=rows,
        titles=run.titles,
        asr=ASR,
        accuracy=ACCURACY,
        certificate=in_sentences(certificate) if certificate else [],
        flattered=run.is_flattered,
        styles=styles(run.arms),
        recommended=recommended,
        is_final=is_final,
        on_target=target_in_words(run, recommended) if recommended else "",
        references={row.arm: row for row in rows if row.arm in REFERENCE_ARMS},
        incoherent=[(row, rate) for row in rows if (rate := incoherence_of(row.pooled)).n],
        warnings=warnings(rows),
        disagreements=disagreements(run, rows),
        beside=beside_published(run),
        arm_differences=differences,
        ranking=ranking(run, rows, differences),
        hypervolumes=hypervolumes(run),
        departures=departures(run.published, run.sweep) if run.published else [],
        profile=profile,
        tamper_curves=further,
        worst_cases=worst_cases(run),
        generations=later,
        without_curves=left_out(run),
        try_tables=tries,
        guide=guide(run),
        figures={
            name: _embedded(figure.to_plotly_json())
            for name, figure in figures(run, profile, tries, further, later).items()
        },
        answers=answers or packed(run, samples(run, rows)),
        answers_file=REPORT_ANSWERS,
        explorer_scripts=explorer_scripts(),
        explorer_styles=explorer_styles(),
        failed=[trial | {"settings": settings(run.sweep, trial["arm"], trial["point"])} for trial in failures(run)],
        stopped=stopped(run),
        data=_embedded(_data(run, rows)),
        plotly=Markup(get_plotlyjs()),
        sweep=json.dumps(run.sweep, indent=2, ensure_ascii=False),
        provenance=provenance(run, rows),
        breakdown=breakdown(run, rows),
        part_differences=part_differences(run, rows, answers_by_arm),
        versions=installed_versions() | recorded_versions(run.folder),
        writer=installed_versions().get("safecomm", "of an unknown version"),
    )


@cache
def _template() -> Template:
    """Returns the page's template, with what it calls to put values into words."""
    environment = Environment(
        loader=PackageLoader("safecomm.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = {"rate": rate_in_words, "unscored": unscored_in_words, "in_words": in_words}
    environment.filters |= words | {"benchmarks": benchmark_rates, "difference": difference_in_words}
    environment.filters |= {"change": change_in_words, "code": _with_code}
    return environment.get_template("page.html.j2")


def _data(run: Run, rows: list[Headline]) -> dict[str, Any]:
    """Returns the page's unrounded data for programs: the headline points, the judges and all trials."""
    return {
        "headline": [row.pooled | as_columns(_corrected(row)) | {"recommended": row.recommended} for row in rows],
        "judges": {name: asdict(found) for name, found in run.judges.items()},
        "trials": rows_of(run.trials),
    }


def _corrected(row: Headline) -> dict[str, Rate]:
    return {f"corrected_{name}": rate for name, rate in row.corrected.items()}


def _with_code(sentence: str) -> Markup:
    """Returns a sentence as HTML, with what stands between backticks as code."""
    parts = sentence.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def _embedded(value: Any) -> Markup:
    """Returns JSON for a script element; escapes `<`, so that no value can close the element."""
    text = json.dumps(without_nan(value), ensure_ascii=False, default=plain)
    return Markup(text.replace("<", "\\u003c"))
