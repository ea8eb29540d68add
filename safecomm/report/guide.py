"""The guide: what a team can do with the results, in sentences that rest on measured rates or say what is missing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safecomm.report.disagreement import disagreements
from safecomm.report.drift import by_policy, generations, on_target, unfinished
from safecomm.report.incoherence import warnings
from safecomm.report.points import Point, rate_in
from safecomm.report.run import Headline, Run, headline, in_words, rate_in_words
from safecomm.report.tampering import TITLES, TamperCurve, tamper_curves
from safecomm.report.worst_case import worst_cases
from safecomm.spec import ORIGINAL, UNDEFENDED
from safecomm.spec.attacks import KINDS
from safecomm.statistics.metric_table import ACCURACY, ASR, OVER_REFUSAL
from safecomm.statistics.metrics import Rate
from safecomm.storage.names import GUIDE
from safecomm.storage.store import write_text

NOT_MEASURED = "Not measured"


@dataclass(frozen=True)
class Advice:
    """One part of the guide."""

    question: str
    sentences: list[str]


def write_guide(run: Run) -> Path:
    """Writes `guide.md` into a run folder and returns its path."""
    lines = [f"# {run.sweep['name']}: what to do with these results", ""]
    for part in guide(run):
        lines += [f"## {part.question}", "", *(f"- {sentence}" for sentence in part.sentences), ""]
    lines.append("Brackets are 95% intervals on the report split; n counts the prompts with a verdict.")
    path = run.folder / GUIDE
    write_text(path, "\n".join(lines) + "\n")
    return path


def guide(run: Run) -> list[Advice]:
    """Returns the guide for the recommended point."""
    rows = {row.arm: row for row in headline(run)}
    chosen = next((row for row in rows.values() if row.recommended), None)
    if chosen is None:
        return [Advice("Which adapter?", [*run.warnings, run.without_recommendation])]
    curves = [one for one in tamper_curves(run) if one.arm == chosen.arm]
    return [
        Advice("Which adapter?", [*run.warnings, *_choice(run, chosen)]),
        Advice("What does it cost?", list(_costs(run, chosen, rows))),
        Advice("What does it not cover?", list(_gaps(run, chosen, curves))),
        Advice(
            "When to measure again?", [*_renewal(chosen, curves, ASR.words(run.domain)), *_generations(run, chosen)]
        ),
    ]


def _choice(run: Run, row: Headline) -> list[str]:
    settings = in_words(row.settings)
    return [
        f"{row.arm}{f' ({settings})' if settings else ''}: {run.outcome['recommended']['reason']}.",
        target_in_words(run, row),
        "`safecomm gate` decides on its release, and `safecomm export` writes it.",
    ]


def target_in_words(run: Run, row: Headline) -> str:
    """Returns whether a headline row keeps the target on the report split."""
    rate, target = row.rates[ASR.name], run.sweep["search"]["target_asr"]
    kept = "keeps" if row.meets_target else "does not surely keep" if rate.value <= target else "misses"
    return f"Its {ASR.words(run.domain)} of {rate_in_words(rate)} {kept} the target of {target:.1%}."


def _costs(run: Run, row: Headline, rows: dict[str, Headline]) -> Iterator[str]:
    for metric, arm in ((ACCURACY, UNDEFENDED), (OVER_REFUSAL, ORIGINAL)):
        name = metric.words(run.domain)
        if metric.name not in row.rates or arm not in rows or row.arm == arm:
            yield f"{NOT_MEASURED}: {name} compared with {arm}."
            continue
        own, other = rate_in_words(row.rates[metric.name]), rate_in_words(rows[arm].rates[metric.name])
        yield f"{name.capitalize()}: {own}, against {other} of {arm}."


def _gaps(run: Run, row: Headline, curves: Sequence[TamperCurve]) -> Iterator[str]:
    target = run.sweep["search"]["target_asr"]
    for benchmark, rate in _by_benchmark(row.pooled):
        if rate.n and rate.high > target:
            above = "is above" if rate.low > target else "may be above"
            yield f"{benchmark}: {ASR.words(run.domain)} {above} {target:.1%}: {rate_in_words(rate)}."
    yield from warnings([row])
    yield from disagreements(run, [row])
    if missing := [name for name in KINDS if name not in run.attacks]:
        yield f"{NOT_MEASURED}: the attacks {', '.join(missing)}, and all others."
    for trained_on in TITLES.values():
        found = [one for one in curves if one.trained_on == trained_on]
        if not found:
            yield f"{NOT_MEASURED}: further training on {trained_on}."
        for one in found:
            if one.breach.at != 0:  # otherwise it is above the target already, as said before
                steps = f"steps of training on {one.training} until the target is exceeded"
                yield f"{one.benchmark}: {steps}: {one.breach}."
    for worst in worst_cases(run):
        if worst.arm == row.arm:
            yield f"{worst.benchmark}: the worst {ASR.words(run.domain)} of training on {worst.trained_on}: {worst}."
    if not run.correction:
        yield f"{NOT_MEASURED}: the errors of the judge {run.judge_names[0]}, on which all of this rests."


def _renewal(row: Headline, curves: Sequence[TamperCurve], name: str) -> Iterator[str]:
    yield "After every further training, merge or quantization: the rates hold for these weights only."
    steps = [one.breach for one in curves if one.trained_on == TITLES["data"]]
    if limits := [breach.low for breach in steps if breach.low]:
        yield f"At the latest after {min(limits)} steps on harmless data: from there, the target may be exceeded."
    if row.seeds > 1 and ASR.name in row.runs:
        low, high = row.runs[ASR.name]
        yield f"After another fine-tune with these settings, expect a mean {name} in [{low:.1%}, {high:.1%}]."
    else:
        yield f"{NOT_MEASURED}: how much another fine-tune with the same settings differs (set seeds to at least 3)."


def _generations(run: Run, row: Headline) -> Iterator[str]:
    """Says of each policy whether it kept the target when the adapter was trained again."""
    target, name = run.sweep["search"]["target_asr"], ASR.words(run.domain)
    every = generations(run)
    found = [one for one in every if one.arm == row.arm] or every
    if not found:
        yield f"{NOT_MEASURED}: whether these settings suit other data; search again for a new dataset."
    missing = unfinished(run, every) if every else set()
    for place, later in by_policy(found).items():
        arm, start, policy = place
        course = f"{arm}, trained again on further data ({start}) with the policy `{policy}`"
        rates = [one.rates[ASR.name] for one in later]
        if place in missing or not all(rate.n for rate in rates):
            yield f"{NOT_MEASURED} completely: {course}. Run the sweep again."
            continue
        worst = max(later, key=lambda one: one.rates[ASR.name].high)
        yield (
            f"{course}: the target of {target:.1%} {on_target(rates, target)}; the highest {name} is "
            f"{rate_in_words(worst.rates[ASR.name])}, in generation {worst.generation} of order {worst.order}."
        )


def _by_benchmark(point: Point) -> list[tuple[str, Rate]]:
    names = [key for key in point if key.startswith(f"{ASR.name}/") and f"{key}_low" in point]
    return [(name.partition("/")[2], rate_in(point, name)) for name in names]
