"""What is known of the adapters that arms start from: the figures that tell settings apart before they are tried.

A small index beside the store's stages. A plan reads it without torch, and a sweep in a store that another one has
filled finds what that one measured.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safecomm.spec import Sweep
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage import shared
from safecomm.storage.store import Store, digest, write_json


class ProfileCache:
    """The alignment profiles' figures, by training and seed."""

    def __init__(self, sweep: Sweep):
        """Takes the sweep that decides the model and the fine-tune."""
        self._root = Store.of(sweep.storage).root / "profiles"
        parts = sweep.resolved()
        self._made_from = {
            "model": parts["model"],
            "finetune": parts["finetune"],
            "workers": sweep.cluster.finetune.workers,
        }

    def fetch(self) -> None:
        """Brings what other nodes measured to this one."""
        shared.fetch(self._root)

    def get(self, training: Mapping[str, Any], seed: int) -> list[ModuleProfile] | None:
        """Returns the modules of a fine-tune's adapter, or None where it has not been profiled."""
        path = self._path(training, seed)
        if not path.is_file():
            return None
        return [ModuleProfile(**row) for row in json.loads(path.read_text(encoding="utf-8"))["modules"]]

    def keep(self, training: Mapping[str, Any], seed: int, modules: list[ModuleProfile]) -> None:
        """Takes in the figures of a fine-tune's adapter."""
        rows = [asdict(module) for module in modules]
        path = self._path(training, seed)
        write_json(path, {"inputs": self._inputs(training, seed), "modules": rows})
        shared.publish(path)

    def _path(self, training: Mapping[str, Any], seed: int) -> Path:
        return self._root / f"{digest(self._inputs(training, seed))}.json"

    def _inputs(self, training: Mapping[str, Any], seed: int) -> dict[str, Any]:
        return {**self._made_from, "training": dict(training), "seed": seed}
