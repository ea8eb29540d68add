"""The data of a sweep, read once by the driver and stored for all nodes.

Trials must not read the sources themselves: on their nodes a dataset may be out of date, gated or unreachable.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safecomm.data.rows import Example, Prompt
from safecomm.plan.data import all_prompts, examples, of_split
from safecomm.spec import DatasetRef, Sweep
from safecomm.storage.store import Store, digest, local_copy

PROMPTS, TASK, SAFETY, SAFE_ADAPTER = "prompts", "task", "safety", "safe_adapter"
TAMPERING = {"data": "tamper_data", "harmful": "tamper_harmful"}
"""The training sets of the section `tamper`."""


def generation_set(number: int) -> str:
    """Returns the name of the training set of an entry of `drift.generations`."""
    return f"generation_{number}"


@dataclass(frozen=True)
class SweepData:
    """Prompts and training examples."""

    sweep: Sweep
    folder: Path | None = None
    """The folder from `store_data`; None to read the data from their sources."""

    def prompts(self, split: str) -> list[Prompt]:
        """Returns the prompts of a split (see `of_split`)."""
        return of_split(self.sweep, split, self._prompts())

    def examples(self, name: str) -> Sequence[Example]:
        """Returns the examples of a training set: TASK, SAFETY, SAFE_ADAPTER, one of TAMPERING or a generation's."""
        if self.folder is None:
            return _examples(self.sweep, name)
        return tuple(Example(**row) for row in _rows(self.folder / f"{name}.jsonl"))

    def _prompts(self) -> Sequence[Prompt]:
        return all_prompts(self.sweep) if self.folder is None else _stored_prompts(self.folder / f"{PROMPTS}.jsonl")


def store_data(sweep: Sweep, store: Store) -> SweepData:
    """Reads all data of a sweep and stores it; the key is a hash of its contents.

    Raises:
        DataError: if a dataset can't be read.
    """
    rows = {PROMPTS: [asdict(prompt) for prompt in all_prompts(sweep)]}
    rows |= {name: [asdict(row) for row in _examples(sweep, name)] for name in _training_sets(sweep)}

    def make(out: Path) -> None:
        for name, records in rows.items():
            with (out / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    return SweepData(sweep, store.obtain("datasets", {name: digest(records) for name, records in rows.items()}, make))


def _examples(sweep: Sweep, name: str) -> tuple[Example, ...]:
    return tuple(example for ref in _training_sets(sweep)[name] for example in examples(ref))


def _training_sets(sweep: Sweep) -> dict[str, Sequence[DatasetRef]]:
    """Returns the datasets of each training set."""
    section = sweep.finetune
    refs: dict[str, Sequence[DatasetRef]] = {
        TASK: section.data,
        SAFETY: [section.safety_data] if section.safety_data else [],
        SAFE_ADAPTER: [section.safe_adapter.data] if section.safe_adapter else [],
    }
    refs |= {name: [ref] for curve, name in TAMPERING.items() if (ref := getattr(sweep.tamper, curve, None))}
    return refs | {generation_set(at): data for at, data in enumerate(sweep.drift.generations if sweep.drift else ())}


@functools.cache
def _stored_prompts(file: Path) -> tuple[Prompt, ...]:
    """Returns stored prompts; cached because a trial's process reads them repeatedly."""
    return tuple(Prompt(**row | {"options": tuple(row["options"])}) for row in _rows(file))


def _rows(file: Path) -> list[dict[str, Any]]:
    with local_copy(file).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
