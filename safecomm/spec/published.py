"""The papers' published results, and the differences between a sweep and their protocol.

`published.json` has the tables as printed: attack success and accuracy in percent, per benchmark and arm. Benchmarks,
datasets and arms have this project's names: TeleData is `tele-eval`, and the fine-tuned model is `undefended`. The two
TeleLLMs have `data: null`; they are used as an adapter on the `model` that the study compared them with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """One table of a paper: a model that the study tuned on one dataset, or that was released already tuned."""

    paper: str
    source: str
    """Paper and table."""
    model: str
    """Hub id of the aligned model."""
    data: str | None
    """The task data of the fine-tune; None for a model that was released already tuned."""
    rates: Mapping[str, Mapping[str, float]]
    """Benchmark -> arm -> attack success rate, or accuracy for a task benchmark, as a share."""
    protocol: Mapping[str, Any]
    """Dotted key of a sweep -> the study's value."""

    @property
    def subject(self) -> str:
        """The model and the data as text."""
        return f"{_last(self.model)} {f'on {self.data}' if self.data else 'with an adapter'}"


def find_published(paper: str, model: str, data: Sequence[str]) -> Published:
    """Returns a paper's results for a model and its task data.

    Args:
        paper: `safecomm` or `safemerge`.
        model: the aligned model, a hub id or a folder with the same name.
        data: names of the training sets; empty for an adapter that is already trained.

    Raises:
        ValueError: if the paper has no such table; lists the existing ones.
    """
    papers = list(dict.fromkeys(table.paper for table in _tables()))
    if paper not in papers:
        raise ValueError(f"there are no published results for {paper!r}; use one of {', '.join(papers)}")
    tables = [table for table in _tables() if table.paper == paper]
    for table in tables:
        if _last(table.model) == _last(model) and list(data) == ([table.data] if table.data else []):
            return table
    tuned = f"on {' + '.join(data)}" if data else "with an adapter"
    known = "; ".join(table.subject for table in tables)
    raise ValueError(f"{paper} has no results for {_last(model)} {tuned}; it has results for {known}")


def departures(published: Published, sweep: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the settings that differ from the study's: dotted key, the sweep's value, the study's value.

    Args:
        published: the table.
        sweep: a resolved sweep.
    """
    found = [(key, _value(sweep, key), theirs) for key, theirs in published.protocol.items()]
    return [
        (key, _text(ours), _text(theirs)) for key, ours, theirs in found if _comparable(ours) != _comparable(theirs)
    ]


@cache
def _tables() -> list[Published]:
    raw = json.loads(files("safecomm.spec").joinpath("published.json").read_text(encoding="utf-8"))
    return [
        Published(
            paper=table["paper"],
            source=table["source"],
            model=table["model"],
            data=table["data"],
            rates={name: _by_arm(raw["arms"], values) for name, values in table["rates"].items()},
            protocol=_protocol(raw, table["data"]),
        )
        for table in raw["tables"]
    ]


def _by_arm(arms: Sequence[str], percents: Sequence[float]) -> dict[str, float]:
    return {arm: percent / 100 for arm, percent in zip(arms, percents, strict=True)}


def _protocol(raw: Mapping[str, Any], data: str | None) -> dict[str, Any]:
    """Returns the protocol of a table; without fine-tune settings if the model was released already tuned."""
    if data is None:
        return {key: value for key, value in raw["protocol"].items() if not key.startswith("finetune.")}
    return {**raw["protocol"], "finetune.epochs": raw["epochs"][data]}


def _value(sweep: Any, key: str) -> Any:
    for name in key.split("."):
        sweep = sweep[int(name)] if isinstance(sweep, list) else (sweep or {}).get(name)
    return sweep


def _comparable(value: Any) -> Any:
    """Normalizes a value for comparison: the last part of a model's name, lists in sorted order."""
    if isinstance(value, str):
        return _last(value)
    return sorted(value) if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _last(reference: str) -> str:
    return reference.partition("@")[0].rstrip("/").rpartition("/")[-1]
