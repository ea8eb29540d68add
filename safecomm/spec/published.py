"""What the papers publish of a sweep's model and data, and how a sweep departs from their protocol.

`published.json` has their tables: attack success and accuracy in percent by benchmark, a value an arm, as printed.
Benchmarks, datasets and arms have this project's names: TeleData is `tele-eval`, `undefended` the fine-tuned model. Of
the two TeleLLMs `data` is null: they come as an adapter on the `model` that the study held them against.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """One table of a paper: a model tuned on one dataset, or released as tuned."""

    paper: str
    source: str
    """Paper and table."""
    model: str
    """Hub id of the aligned model."""
    data: str | None
    """The task data that it was tuned on; None for a model that was released as tuned."""
    rates: Mapping[str, Mapping[str, float]]
    """Benchmark -> arm -> share: of answers judged unsafe, or right for a task benchmark."""
    protocol: Mapping[str, Any]
    """Dotted key of a sweep -> the study's value."""

    @property
    def subject(self) -> str:
        """The model and the data in words."""
        return f"{_last(self.model)} {f'on {self.data}' if self.data else 'with an adapter'}"


def find_published(paper: str, model: str, data: Sequence[str]) -> Published:
    """Returns what a paper publishes of a model and its task data.

    Args:
        paper: `safecomm` or `safemerge`.
        model: the aligned model, a hub id or a folder of that name.
        data: names of the training sets; none for an adapter that is trained already.

    Raises:
        ValueError: where it has no such table, with those that there are.
    """
    papers = list(dict.fromkeys(table.paper for table in _tables()))
    if paper not in papers:
        raise ValueError(f"there are no published numbers of {paper!r}; there are those of {', '.join(papers)}")
    tables = [table for table in _tables() if table.paper == paper]
    for table in tables:
        if _last(table.model) == _last(model) and list(data) == ([table.data] if table.data else []):
            return table
    tuned = f"on {' + '.join(data)}" if data else "with an adapter"
    known = "; ".join(table.subject for table in tables)
    raise ValueError(f"{paper} has no numbers of {_last(model)} {tuned}; it has those of {known}")


def departures(published: Published, sweep: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns dotted key, the sweep's value and the study's, where these differ.

    Args:
        published: the table.
        sweep: a resolved sweep.
    """
    found = [(key, _value(sweep, key), theirs) for key, theirs in published.protocol.items()]
    return [(key, _words(ours), _words(theirs)) for key, ours, theirs in found if _plain(ours) != _plain(theirs)]


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
    """Returns the protocol of a table; a model that was released as tuned has no fine-tune of the study's."""
    if data is None:
        return {key: value for key, value in raw["protocol"].items() if not key.startswith("finetune.")}
    return {**raw["protocol"], "finetune.epochs": raw["epochs"][data]}


def _value(sweep: Any, key: str) -> Any:
    for name in key.split("."):
        sweep = sweep[int(name)] if isinstance(sweep, list) else (sweep or {}).get(name)
    return sweep


def _plain(value: Any) -> Any:
    """Returns what two values are compared by: of models the last part of the name, of lists what is in them."""
    if isinstance(value, str):
        return _last(value)
    return sorted(value) if isinstance(value, list) else value


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _last(reference: str) -> str:
    return reference.partition("@")[0].rstrip("/").rpartition("/")[-1]
