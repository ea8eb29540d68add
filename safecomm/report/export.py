"""Exports a run's adapter for release: the weights, their lineage and a model card."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safecomm.data.catalog.registry import DATASETS
from safecomm.errors import UsageError
from safecomm.report.points import Point
from safecomm.report.release import Release, released, searched
from safecomm.report.run import FLATTERED, Headline, Run, in_words, rate_in_words, read_run, unscored_in_words
from safecomm.statistics.metric_table import ASR, METRICS
from safecomm.statistics.metrics import Rate
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE
from safecomm.storage.output_files import new_folder
from safecomm.storage.own_code import is_dotted
from safecomm.storage.store import local_copy, stage_damage, write_json

REPORTED = "Measured on prompts that were not used to choose the settings."
SEARCHED = (
    "Measured on the prompts of the search, among whose points this one was picked, so the rates are optimistic. It "
    "was not measured on the report split."
)


def export(folder: Path, arm: str | None, seed: int, out: Path, point: str | None = None) -> Headline:
    """Writes an adapter to a new folder: an arm's best, by default the recommended one, or that of any trial.

    Args:
        folder: the run folder.
        arm: the arm.
        seed: the seed of the fine-tune.
        out: the new folder.
        point: the id of a trial of the search, instead of arm and seed.

    Returns:
        The adapter's row in the headline table.

    Raises:
        UsageError: if there is no such adapter, or the folder already exists.
    """
    found = read_run(folder)
    release = searched(found, point) if point else released(found, arm, seed)
    run, row, trial = release.run, release.row, release.trial
    if not trial["adapter_path"]:
        raise UsageError(f"{folder}: {row.arm} has no adapter to export; choose another arm with --arm")
    source = local_copy(Path(trial["adapter_path"]))
    _check_intact(source)
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"], revision = split_reference(run.sweep["model"]["aligned"])
    config |= {"revision": revision} if revision else {}
    with new_folder(out) as half:
        shutil.copy(source / ADAPTER_WEIGHTS, half)
        write_json(half / ADAPTER_CONFIG, config)
        write_json(half / LINEAGE, _lineage(run, row, trial, source))
        (half / "README.md").write_text(_card(release), encoding="utf-8")
    return row


def _check_intact(adapter: Path) -> None:
    """Compares an adapter's files in the store with their checksums.

    Raises:
        UsageError: if a file is missing or was altered.
    """
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE) if not (adapter / name).is_file()]:
        reason = f"{', '.join(missing)} is no longer in the store"
    else:
        reason = stage_damage(adapter)
    if reason:
        raise UsageError(f"{adapter}: {reason}; nothing was exported. Run the sweep again to recreate the adapter")


def _lineage(run: Run, row: Headline, trial: Point, source: Path) -> dict[str, Any]:
    """Returns how the adapter was made: every stage with its inputs, last stage first."""
    stages = [json.loads((source / LINEAGE).read_text(encoding="utf-8"))]
    while earlier := [path for path in _stages(run, stages[-1]["inputs"]) if path.is_file()]:
        stages.append(json.loads(earlier[0].read_text(encoding="utf-8")))
    chosen = {"arm": row.arm, "point": json.loads(row.point), "seed": trial["seed"], "settings": row.settings}
    return {"run": run.sweep["name"], **chosen, "adapter": trial["adapter"], "stages": stages, "sweep": run.sweep}


def _stages(run: Run, inputs: dict[str, Any]) -> list[Path]:
    key = inputs.get("adapter") or inputs.get("data")
    return [run.stage(stage, str(key)) / LINEAGE for stage in ("realign", "finetune", "data")] if key else []


def _card(release: Release) -> str:
    """Returns the model card, which starts with metadata for the Hub."""
    run, row, trial = release.run, release.row, release.trial
    sweep = run.sweep
    judges = run.judge_names
    lines = [
        "---",
        f"base_model: {_as_yaml(split_reference(sweep['model']['aligned'])[0])}",
        "library_name: peft",
        f"tags: [safecomm, lora, {run.domain.tag}]",
        "---",
        "",
        f"# {sweep['name']}: {row.arm}",
        "",
        f"A LoRA adapter for `{sweep['model']['aligned']}`, fine-tuned on {trial['data']} and defended with {row.arm}"
        f"{f' ({in_words(row.settings)})' if row.settings else ''}, seed {trial['seed']}. Made with safecomm; "
        "`lineage.json` records every step and its inputs.",
        "",
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
        *(f"| {name} | {_licence(name)} |" for name in _datasets(sweep)),
        "",
        "The licence of the base model also applies to the adapter.",
        "",
    ]
    return "\n".join(" ".join(line.split()) for line in lines)  # a name with newlines can't add lines


def _as_yaml(text: str) -> str:
    return text if re.fullmatch(r"(lab://)?[\w.-]+(/[\w.-]+)?", text) else json.dumps(text)


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


def _licence(name: str) -> str:
    return DATASETS[name].licence if name in DATASETS else "set by its owner"


def _datasets(sweep: dict[str, Any]) -> list[str]:
    """Returns the names of all datasets that a sweep used for training and evaluation."""
    finetune, evaluate = sweep["finetune"], sweep["evaluate"]
    safe = (finetune.get("safe_adapter") or {}).get("data")
    used = [*finetune.get("data", []), finetune.get("safety_data"), safe]
    used += [ref for metric in METRICS for ref in evaluate.get(metric.kind, [])]
    return list(dict.fromkeys(ref["name"] for ref in used if ref))
