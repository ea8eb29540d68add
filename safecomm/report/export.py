"""A run's adapter, ready to be given away: its weights, where it comes from, and a model card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safecomm.data.catalog.registry import DATASETS
from safecomm.errors import UsageError
from safecomm.report.gate import release_row
from safecomm.report.points import Point, rows_of
from safecomm.report.run import FLATTERED, Headline, Run, in_words, rate_in_words, read_run, unscored_in_words
from safecomm.statistics.metric_table import ASR, METRICS
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE
from safecomm.storage.own_code import is_dotted
from safecomm.storage.store import local_copy, new_folder, write_json


def export(folder: Path, arm: str | None, seed: int, out: Path) -> Headline:
    """Writes an arm's best adapter, or the recommended one, to a new folder.

    Returns:
        The row of the headline table that it stands in.

    Raises:
        UsageError: where there is no such adapter, or the folder is taken.
    """
    run = read_run(folder)
    row = release_row(run, arm)
    trial = _trial(run, row, seed)
    if not trial["adapter_path"]:
        raise UsageError(f"{folder}: {row.arm} is the model without an adapter; there is nothing to export")
    source = local_copy(Path(trial["adapter_path"]))
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (source / name).is_file()]:
        raise UsageError(f"{source}: {', '.join(missing)} is gone from the store; run the sweep again to make it anew")
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"], revision = split_reference(run.sweep["model"]["aligned"])
    config |= {"revision": revision} if revision else {}
    with new_folder(out) as half:
        shutil.copy(source / ADAPTER_WEIGHTS, half)
        write_json(half / ADAPTER_CONFIG, config)
        write_json(half / LINEAGE, _lineage(run, row, trial, source))
        (half / "README.md").write_text(_card(run, row, trial), encoding="utf-8")
    return row


def _trial(run: Run, row: Headline, seed: int) -> Point:
    trials = run.trials_of(row.arm, row.point, "report")
    found = rows_of(trials[trials["seed"] == seed])
    if not found:
        seeds = ", ".join(map(str, trials["seed"]))
        raise UsageError(f"{run.folder}: {row.arm} was not measured with seed {seed}; its seeds: {seeds}")
    return found[0]


def _lineage(run: Run, row: Headline, trial: Point, source: Path) -> dict[str, Any]:
    """Returns the chain behind the adapter: every stage with its inputs, the last first."""
    stages = [json.loads((source / LINEAGE).read_text(encoding="utf-8"))]
    while earlier := [path for path in _stages(run, stages[-1]["inputs"]) if path.is_file()]:
        stages.append(json.loads(earlier[0].read_text(encoding="utf-8")))
    chosen = {"arm": row.arm, "point": json.loads(row.point), "seed": trial["seed"], "settings": row.settings}
    return {"run": run.sweep["name"], **chosen, "adapter": trial["adapter"], "stages": stages, "sweep": run.sweep}


def _stages(run: Run, inputs: dict[str, Any]) -> list[Path]:
    key = inputs.get("adapter") or inputs.get("data")
    return [run.stage(stage, str(key)) / LINEAGE for stage in ("realign", "finetune", "data")] if key else []


def _card(run: Run, row: Headline, trial: Point) -> str:
    """Returns the model card, with the metadata that a hub reads at its head."""
    sweep = run.sweep
    judges = [judge["name"] if isinstance(judge, dict) else judge for judge in sweep["evaluate"]["judges"]]
    lines = [
        "---",
        f"base_model: {split_reference(sweep['model']['aligned'])[0]}",
        "library_name: peft",
        f"tags: [safecomm, lora, {run.domain.tag}]",
        "---",
        "",
        f"# {sweep['name']}: {row.arm}",
        "",
        f"A LoRA adapter for `{sweep['model']['aligned']}`, tuned on {trial['data']} and defended by {row.arm}"
        f"{f' ({in_words(row.settings)})' if row.settings else ''}, seed {trial['seed']}. Made by safecomm; "
        "`lineage.json` tells every step and its inputs.",
        "",
        "## Measured",
        "",
        FLATTERED if run.is_flattered else "On prompts that the settings were not chosen on.",
        "95% intervals.",
        "",
        "| | rate |",
        "|---|---|",
        *(f"| {run.titles[metric]} | {_rate(row, metric)} |" for metric in run.metrics),
        "",
        f"{run.titles[ASR.name]} is what {judges[0]} judges {ASR.hit}. All judges: {', '.join(judges)}.",
        "",
        *_own_code(run, row.arm),
        "## Data and licences",
        "",
        "| dataset | licence |",
        "|---|---|",
        *(f"| {name} | {_licence(name)} |" for name in _datasets(sweep)),
        "",
        "The adapter also falls under the licence of its base model.",
        "",
    ]
    return "\n".join(lines)


def _own_code(run: Run, arm: str) -> list[str]:
    """Returns the card's section on code that is not safecomm's; none where there is none."""
    steps = [reference for step in run.sweep["arms"].get(arm, []) for reference in step if is_dotted(reference)]
    named = ", ".join(f"`{name}`" for name in dict.fromkeys([*steps, *_own_refs(run.sweep)]))
    said = f"This code of the adapter's makers decided the result too, beside safecomm: {named}."
    return ["## Code", "", said, ""] if named else []


def _own_refs(section: Any) -> Iterator[str]:
    """Yields the dotted names of the datasets and judges in a section of a sweep."""
    if isinstance(section, dict):
        if isinstance(section.get("own"), str):
            yield section["own"]
        section = list(section.values())
    for part in section if isinstance(section, list) else ():
        yield from _own_refs(part)


def _rate(row: Headline, metric: str) -> str:
    rate = row.rates[metric]
    return ", ".join(filter(None, [rate_in_words(rate), unscored_in_words(rate)]))


def _licence(name: str) -> str:
    return DATASETS[name].licence if name in DATASETS else "its owner's"


def _datasets(sweep: dict[str, Any]) -> list[str]:
    """Returns the names of all datasets that a sweep trained and measured on."""
    finetune, evaluate = sweep["finetune"], sweep["evaluate"]
    safe = (finetune.get("safe_adapter") or {}).get("data")
    used = [*finetune.get("data", []), finetune.get("safety_data"), safe]
    used += [ref for metric in METRICS for ref in evaluate.get(metric.kind, [])]
    return list(dict.fromkeys(ref["name"] for ref in used if ref))
