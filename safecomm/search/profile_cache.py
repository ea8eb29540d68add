"""A cache of alignment profiles, from which equivalent settings are recognised before any trial runs.

It is a small index beside the store's stages. A plan reads it without torch, and sweeps that share a store share their
profiles.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safecomm.spec import Sweep
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage import shared
from safecomm.storage.input_files import read_json
from safecomm.storage.store import Store, digest, write_json


class ProfileCache:
    """Alignment profiles by training settings and seed."""

    def __init__(self, sweep: Sweep):
        """Opens the cache for a sweep, whose model and fine-tune are part of every key."""
        self._root = Store.of(sweep.storage).root / "profiles"
        parts = sweep.resolved()
        self._shared_inputs = {
            "model": parts["model"],
            "finetune": parts["finetune"],
            "workers": sweep.cluster.finetune.workers,
        }

    def fetch(self) -> None:
        """Copies the profiles that other nodes have measured to this one."""
        shared.fetch(self._root)

    def get(self, training: Mapping[str, Any], seed: int) -> list[ModuleProfile] | None:
        """Returns the profiled modules of a fine-tune's adapter; None if it has no profile, or a damaged one."""
        try:
            return [ModuleProfile(**row) for row in read_json(self._path(training, seed))["modules"]]
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, training: Mapping[str, Any], seed: int, modules: list[ModuleProfile]) -> None:
        """Stores the profile of a fine-tune's adapter and publishes it to the other nodes."""
        rows = [asdict(module) for module in modules]
        path = self._path(training, seed)
        write_json(path, {"inputs": self._inputs(training, seed), "modules": rows})
        shared.publish(path)

    def _path(self, training: Mapping[str, Any], seed: int) -> Path:
        return self._root / f"{digest(self._inputs(training, seed))}.json"

    def _inputs(self, training: Mapping[str, Any], seed: int) -> dict[str, Any]:
        return {**self._shared_inputs, "training": dict(training), "seed": seed}
