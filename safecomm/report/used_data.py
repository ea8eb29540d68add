"""The datasets that a sweep trained on and measured with: their roles, licences and places."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safecomm.data.catalog.registry import DATASETS
from safecomm.data.sources import Hub
from safecomm.statistics.metric_table import METRICS

TRAINING = "training"


@dataclass(frozen=True)
class UsedData:
    """One dataset and what it was used for."""

    name: str
    roles: tuple[str, ...]
    """`training`, or the kinds of benchmark (`red_team`, `over_refusal`, `task`) that it is."""
    licence: str
    page: str
    """Where it is published; empty if it is generated, or the user's own."""
    hub_id: str
    """Its id on the Hub; empty if it is not there."""

    @property
    def is_non_commercial(self) -> bool:
        """Whether its licence excludes commercial use."""
        return "-NC" in self.licence

    @property
    def spdx(self) -> str:
        """The licence's SPDX identifier, if it has one; otherwise the licence as it is."""
        plain = self.licence.partition(";")[0]
        return plain.replace(" ", "-") if plain.startswith("CC BY") else plain


def used_data(sweep: dict[str, Any]) -> list[UsedData]:
    """Returns the datasets in a sweep as `sweep.json` has it."""
    roles: dict[str, dict[str, None]] = {}
    for name, role in _uses(sweep):
        roles.setdefault(name, {})[role] = None
    return [_described(name, tuple(of_name)) for name, of_name in roles.items()]


def _uses(sweep: dict[str, Any]) -> Iterator[tuple[str, str]]:
    finetune, evaluate = sweep["finetune"], sweep["evaluate"]
    safe = (finetune.get("safe_adapter") or {}).get("data")
    for ref in filter(None, [*finetune.get("data", []), finetune.get("safety_data"), safe]):
        yield ref["name"], TRAINING
    for metric in METRICS:
        for ref in evaluate.get(metric.kind, []):
            yield ref["name"], metric.kind


def _described(name: str, roles: tuple[str, ...]) -> UsedData:
    entry = DATASETS.get(name)
    if entry is None:
        return UsedData(name, roles, "set by its owner", "", "")
    hub_id = entry.source.repo if isinstance(entry.source, Hub) else ""
    return UsedData(name, roles, entry.licence, entry.page, hub_id)
