"""The training sets of a sweep's fine-tunes, each mixed once and then kept in the store."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from safecomm.data.mixing import mix
from safecomm.data.rows import FORMER_TASK, Example
from safecomm.defenses.defense import TrainingDefense
from safecomm.search.arms import Chain, training
from safecomm.storage.names import MIXTURE, TRAIN_DATA
from safecomm.storage.own_code import is_dotted, source_digest
from safecomm.storage.store import Store, digest, write_json
from safecomm.storage.versions import version
from safecomm.sweep.data import SAFE_ADAPTER, SAFETY, TAMPERING, TASK, SweepData


@dataclass(frozen=True)
class TrainingData:
    """Creates training sets in the store, as folders with a `train.jsonl`."""

    data: SweepData
    store: Store

    def mixed(self, chain: Chain, steps: Sequence[TrainingDefense], seed: int, tasks: Sequence[str] = (TASK,)) -> Path:
        """Returns the folder of the task's training set after the given training defenses.

        Args:
            chain: the training defenses, with their settings.
            steps: the same defenses as objects.
            seed: the seed of the mixture.
            tasks: the sets of task examples.
        """
        own = [[name, settings, source_digest(name)] for name, settings in chain if is_dotted(name)]

        def make() -> Path:
            task = [example for name in tasks for example in self.data.examples(name)]
            safety = self.data.examples(SAFETY) if any("safety_data" in step.needs for step in steps) else ()
            rows = training_set(steps, task, safety, seed)
            ratio = float(training(chain).get("ratio", 0.0))
            drawn = {FORMER_TASK: len(task), "safety": len(rows) - len(task), "ratio": ratio, "seed": seed}
            return self._written(rows, drawn | ({"own": own} if own else {}))

        of_others = {"tasks": list(tasks)} if list(tasks) != [TASK] else {}
        return self._once({"chain": chain, "own": own, "seed": seed} | of_others, make)

    def safe(self, seed: int) -> Path:
        """Returns the folder of the safe adapter's training set."""

        def make() -> Path:
            rows = self.data.examples(SAFE_ADAPTER)
            return self._written(rows, {FORMER_TASK: 0, "safety": len(rows), "seed": seed})

        return self._once({"chain": SAFE_ADAPTER, "seed": seed}, make)

    def tampering(self, field: str, seed: int) -> Path:
        """Returns the folder of the training set of a field of `tamper`."""

        def make() -> Path:
            rows = mix(self.data.examples(TAMPERING[field]), (), 0.0, seed).examples
            return self._written(rows, {FORMER_TASK: len(rows), "safety": 0, "seed": seed})

        return self._once({"chain": TAMPERING[field], "seed": seed}, make)

    def patching(self, examples: Sequence[Example], batch_size: int, seed: int) -> Path:
        """Returns the folder of the training set of a patch: its examples, repeated until they fill a batch."""
        rows = list(islice(cycle(examples), max(batch_size, len(examples))))
        return self._written(rows, {FORMER_TASK: 0, "safety": len(rows), "seed": seed})

    def _once(self, recipe: dict[str, Any], make: Callable[[], Path]) -> Path:
        """Creates a training set unless the store has one with the same recipe, from the same stored data."""
        if self.data.folder is None:
            return make()

        def write_key(out: Path) -> None:
            write_json(out / MIXTURE, {"key": make().name})

        inputs = recipe | {"datasets": self.data.folder.name, "version": version("finetune")}
        entry = self.store.obtain("mixture", inputs, write_key) / MIXTURE
        return self.store.find("data", json.loads(entry.read_text(encoding="utf-8"))["key"]) or make()

    def _written(self, examples: Sequence[Example], drawn: dict[str, Any]) -> Path:
        rows = [{"prompt": example.prompt, "response": example.response} for example in examples]

        def make(out: Path) -> None:
            with (out / TRAIN_DATA).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        return self.store.obtain("data", {"rows": digest(rows), **drawn}, make)


def training_set(
    steps: Sequence[TrainingDefense], task: Sequence[Example], safety: Sequence[Example], seed: int
) -> Sequence[Example]:
    """Applies training defenses to the task's examples; if none of them changes the examples, only shuffles them."""
    rows = task
    for step in steps:
        rows = step.data(rows, safety, seed)
    return mix(task, (), 0.0, seed).examples if rows is task else rows
