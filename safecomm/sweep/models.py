"""The models of a sweep, pinned to the Hub revisions of its first run."""

import json
from dataclasses import dataclass
from pathlib import Path

from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder, resolve_model
from safecomm.spec import Sweep
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.names import MODELS
from safecomm.storage.store import Store, write_json


@dataclass(frozen=True)
class Models:
    """The models on this node."""

    base: ModelFolder
    aligned: ModelFolder
    judges: dict[str, ModelFolder]
    """Judge -> model."""

    @property
    def paths(self) -> list[Path]:
        """The folders of all models."""
        return [self.base.path, self.aligned.path, *(judge.path for judge in self.judges.values())]


def resolve_models(sweep: Sweep, folder: RunFolder, store: Store) -> Models:
    """Finds or downloads the models, and records their revisions in the run folder.

    A later run of the sweep uses the recorded revisions, even if the Hub has newer ones by then.

    Raises:
        ModelError: if a model does not exist or its folder is unusable.
    """
    path = folder.path / MODELS
    recorded = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found: dict[str, ModelFolder] = {}

    def resolve(reference: str) -> ModelFolder:
        repository, requested = split_reference(reference)
        revision = requested or recorded.get(reference, {}).get("revision")
        found[reference] = resolve_model(f"{repository}@{revision}" if revision else reference, store)
        return found[reference]

    models = Models(
        base=resolve(sweep.model.base),
        aligned=resolve(sweep.model.aligned),
        judges={name: resolve(model) for name, model in sweep.evaluate.judge_models.items()},
    )
    write_json(path, {name: {"revision": one.revision, "identity": one.identity} for name, one in found.items()})
    folder.publish(MODELS)
    return models
