"""The training sets of a sweep's fine-tunes: mixed once each, and found in the store afterwards."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from safecomm.sweep.data import SAFE_ADAPTER, SAFETY, TASK, SweepData


@dataclass(frozen=True)
class TrainingData:
    """Makes training sets, in folders with `train.jsonl`."""

    data: SweepData
    store: Store

    def mixed(self, chain: Chain, steps: Sequence[TrainingDefense], seed: int) -> Path:
        """Returns the folder of what some training defenses make of the task's examples.

        Args:
            chain: the training defenses, with their settings.
            steps: the same, as objects.
            seed: of the mixture.
        """
        own = [[name, settings, source_digest(name)] for name, settings in chain if is_dotted(name)]

        def make() -> Path:
            task = self.data.examples(TASK)
            safety = self.data.examples(SAFETY) if any("safety_data" in step.needs for step in steps) else ()
            rows = training_set(steps, task, safety, seed)
            ratio = float(training(chain).get("ratio", 0.0))
            drawn = {FORMER_TASK: len(task), "safety": len(rows) - len(task), "ratio": ratio, "seed": seed}
            return self._written(rows, drawn | ({"own": own} if own else {}))

        return self._once({"chain": chain, "own": own, "seed": seed}, make)

    def safe(self, seed: int) -> Path:
        """Returns the folder of the safe adapter's training set."""

        def make() -> Path:
            rows = self.data.examples(SAFE_ADAPTER)
            return self._written(rows, {FORMER_TASK: 0, "safety": len(rows), "seed": seed})

        return self._once({"chain": SAFE_ADAPTER, "seed": seed}, make)

    def _once(self, recipe: dict[str, Any], make: Callable[[], Path]) -> Path:
        """Makes a training set unless one with the same recipe, from the same stored data, is in the store."""
        if self.data.folder is None:
            return make()

        def note(out: Path) -> None:
            write_json(out / MIXTURE, {"key": make().name})

        inputs = recipe | {"datasets": self.data.folder.name, "version": version("finetune")}
        noted = self.store.obtain("mixture", inputs, note) / MIXTURE
        return self.store.find("data", json.loads(noted.read_text(encoding="utf-8"))["key"]) or make()

    def _written(self, examples: Sequence[Example], drawn: dict[str, Any]) -> Path:
        rows = [{"prompt": example.prompt, "response": example.response} for example in examples]

        def make(out: Path) -> None:
            with (out / TRAIN_DATA).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        return self.store.obtain("data", {"rows": digest(rows), **drawn}, make)


def training_set(
    steps: Sequence[TrainingDefense], task: Sequence[Example], safety: Sequence[Example], seed: int
) -> Sequence[Example]:
    """Returns what training defenses make of the task's examples; if they don't order them, in an order of the seed."""
    rows = task
    for step in steps:
        rows = step.data(rows, safety, seed)
    return mix(task, (), 0.0, seed).examples if rows is task else rows
