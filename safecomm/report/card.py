"""The model card of an adapter: metadata for the Hub, its own rates, its judges, its data and their licences."""

from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from safecomm.report.points import metrics_of, rate_in
from safecomm.report.release import Release
from safecomm.report.run import FLATTERED, Run, in_words, rate_in_words, unscored_in_words
from safecomm.report.used_data import TRAINING, UsedData, used_data
from safecomm.statistics.metric_table import ASR, BY_NAME
from safecomm.statistics.metrics import Rate
from safecomm.storage.hub_cache import is_hub_id, split_reference
from safecomm.storage.own_code import is_dotted

REPORTED = "Measured on prompts that were not used to choose the settings."
SEARCHED = (
    "Measured on the prompts of the search, among whose points this one was picked, so the rates are optimistic. It "
    "was not measured on the report split."
)


def model_card(release: Release, about_files: str = "") -> str:
    """Returns the card as Markdown with YAML metadata.

    Args:
        release: the adapter.
        about_files: a paragraph on the files beside the card.
    """
    run, row, trial = release.run, release.row, release.trial
    judges, data = run.judge_names, used_data(run.sweep)
    lines = [
        f"# {run.sweep['name']}: {row.arm}",
        "",
        f"A LoRA adapter for `{run.sweep['model']['aligned']}`, fine-tuned on {trial['data']} and defended with "
        f"{row.arm}{f' ({in_words(row.settings)})' if row.settings else ''}, seed {trial['seed']}. Made with safecomm; "
        "`lineage.json` records every step and its inputs.",
        "",
        *([about_files, ""] if about_files else []),
        "## Evaluation",
        "",
        FLATTERED if run.is_flattered else SEARCHED if trial["split"] == "search" else REPORTED,
        "Brackets are 95% intervals.",
        "",
        *_rates(release),
        "",
        f"{run.titles[ASR.name]} is the share of responses that {judges[0]} labels {ASR.hit}. "
        f"Judges: {', '.join(judges)}.",
        "",
        *_own_code(run, row.arm),
        "## Data and licences",
        "",
        "| dataset | licence |",
        "|---|---|",
        *(f"| {one.name} | {one.licence} |" for one in data),
        "",
        *_terms(data),
        "",
    ]
    body = "\n".join(" ".join(line.split()) for line in lines)  # a name with newlines can't add lines
    return f"---\n{_metadata(release, data).to_yaml()}\n---\n\n{body}"


def hub_id(reference: str) -> str | None:
    """Returns the Hub id that a model's name is; None for a folder or a lab model."""
    repository, _ = split_reference(reference)
    return repository if is_hub_id(repository) else None


def rates_by_benchmark(release: Release) -> Iterator[tuple[str, str, Rate]]:
    """Yields metric, benchmark and this adapter's own rate, for what has a verdict."""
    for name in metrics_of(release.run.trials):
        metric, _, benchmark = name.partition("/")
        if benchmark and metric in BY_NAME and (rate := rate_in(release.trial, name)).n:
            yield metric, benchmark, rate


def _metadata(release: Release, data: list[UsedData]) -> ModelCardData:
    """Returns the metadata; the Hub refuses ids that it does not have, so folders and lab models are left out."""
    run = release.run
    base = hub_id(run.sweep["model"]["aligned"])
    ids = {one.name: one.hub_id for one in data if one.hub_id}
    return ModelCardData(
        base_model=base,
        datasets=list(dict.fromkeys(ids[one.name] for one in data if TRAINING in one.roles and one.name in ids))
        or None,
        license="other",
        license_name="as-the-base-model-and-the-training-data",
        license_link=f"https://huggingface.co/{base}" if base else None,
        library_name="peft",
        tags=["safecomm", "lora", run.domain.tag],
        model_name=f"{run.sweep['name']}: {release.row.arm}",
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=ids.get(benchmark, benchmark),
                dataset_name=benchmark,
                dataset_split=str(release.trial["split"]),
                metric_type=metric,
                metric_name=run.titles[metric],
                metric_value=round(rate.value, 4),
                metric_args={"n": rate.n, "interval_95": [round(rate.low, 4), round(rate.high, 4)]},
            )
            for metric, benchmark, rate in rates_by_benchmark(release)
        ],
    )


def _terms(data: list[UsedData]) -> list[str]:
    """Returns what the licences mean for the adapter."""
    restricted = [one.name for one in data if TRAINING in one.roles and one.is_non_commercial]
    terms = "The licence of the base model also applies to the adapter."
    return [f"{terms} It is not for commercial use ({', '.join(restricted)})." if restricted else terms]


def _own_code(run: Run, arm: str) -> list[str]:
    """Returns the card's section on the user's code; empty if there is none."""
    steps = [reference for step in run.sweep["arms"].get(arm, []) for reference in step if is_dotted(reference)]
    names = ", ".join(f"`{name}`" for name in dict.fromkeys([*steps, *_own_refs(run.sweep)]))
    note = f"Besides safecomm, this custom code was used: {names}."
    return ["## Code", "", note, ""] if names else []


def _own_refs(section: Any) -> Iterator[str]:
    """Yields the dotted names of the datasets and judges in a section of a sweep."""
    if isinstance(section, dict):
        if isinstance(section.get("own"), str):
            yield section["own"]
        section = list(section.values())
    for part in section if isinstance(section, list) else ():
        yield from _own_refs(part)


def _rates(release: Release) -> list[str]:
    """Returns the table of this adapter's own rates; with several seeds, the rates over all of them stand beside."""
    several = release.row.seeds > 1
    heads = ["", "this adapter", *([f"{release.row.seeds} seeds together"] if several else [])]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for metric, own in release.rates.items():
        cells = [
            release.run.titles[metric],
            _in_words(own),
            *([_in_words(release.row.rates[metric])] if several else []),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _in_words(rate: Rate) -> str:
    return ", ".join(filter(None, [rate_in_words(rate), unscored_in_words(rate)]))
