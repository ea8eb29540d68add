"""Exports a run's adapter for release: the weights, their lineage and a model card."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from safecomm.errors import UsageError
from safecomm.report.card import model_card
from safecomm.report.release import Release, released, searched
from safecomm.report.run import Headline, Run, read_run
from safecomm.report.run_files import read_as
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD, LINEAGE
from safecomm.storage.output_files import new_folder
from safecomm.storage.store import stage_damage, write_json

ADAPTERS_AND_DATA = ("realign", "stacked", "finetune", "start", "data")
"""The stages that a lineage lists."""


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
    source = intact_adapter(release)
    config = read_as(source, ADAPTER_CONFIG, dict[str, Any])
    config["base_model_name_or_path"], revision = split_reference(release.run.sweep["model"]["aligned"])
    config |= {"revision": revision} if revision else {}
    with new_folder(out) as half:
        shutil.copy(source / ADAPTER_WEIGHTS, half)
        write_json(half / ADAPTER_CONFIG, config)
        write_json(half / LINEAGE, lineage_of(release, source))
        (half / CARD).write_text(model_card(release), encoding="utf-8")
    return release.row


def intact_adapter(release: Release) -> Path:
    """Returns the folder of an adapter in the store, after a comparison with its checksums.

    Raises:
        UsageError: if there is no adapter, or one of its files is missing or was altered.
    """
    if not release.trial["adapter_path"]:
        raise UsageError(
            f"{release.run.folder}: {release.row.arm} has no adapter to export; choose another arm with --arm"
        )
    stage, key = Path(release.trial["adapter_path"]).parts[-2:]
    adapter = release.run.stage(stage, key)  # the whole path is no longer right if the storage was moved
    if missing := [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE) if not (adapter / name).is_file()]:
        reason = f"{', '.join(missing)} is no longer in the store"
    else:
        reason = stage_damage(adapter)
    if reason:
        raise UsageError(f"{adapter}: {reason}. Run the sweep again to recreate the adapter")
    return adapter


def lineage_of(release: Release, adapter: Path) -> dict[str, Any]:
    """Returns how an adapter was made: every stage with its inputs, last stage first.

    Args:
        release: the adapter.
        adapter: its folder in the store.
    """
    run, row, trial = release.run, release.row, release.trial
    stages = list(_stages(run, adapter / LINEAGE))
    chosen = {"arm": row.arm, "point": json.loads(row.point), "seed": trial["seed"], "settings": row.settings}
    return {"run": run.sweep["name"], **chosen, "adapter": trial["adapter"], "stages": stages, "sweep": run.sweep}


class Lineage(BaseModel):
    """What is read of a stage's lineage."""

    model_config = ConfigDict(extra="allow")

    inputs: dict[str, Any]


def _stages(run: Run, path: Path) -> Iterator[dict[str, Any]]:
    """Yields a stage's record and those of the stages that it was made from, as far as the store still has them."""
    record = read_as(path.parent, path.name, Lineage)
    yield record
    for name in ("adapter", "above", "below", "after", "data"):
        key = str(record["inputs"].get(name) or "")
        places = (run.stage(stage, key) / LINEAGE for stage in ADAPTERS_AND_DATA if key)
        if earlier := next((place for place in places if place.is_file()), None):
            yield from _stages(run, earlier)
