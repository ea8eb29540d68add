"""The models of a sweep, pinned to the Hub revisions of its first run, and a given adapter."""

from dataclasses import dataclass
from pathlib import Path

from safecomm.defenses.adapter import Adapter
from safecomm.errors import ModelError
from safecomm.report.run_files import read_as
from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder, resolve_model
from safecomm.spec import Finetune, Sweep
from safecomm.statistics.selection import module_type
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
    revisions: dict[str, dict[str, str | None]]
    """Model as the sweep names it -> its revision on the Hub and the hash of its files."""

    @property
    def paths(self) -> list[Path]:
        """The folders of all models."""
        return [self.base.path, self.aligned.path, *(judge.path for judge in self.judges.values())]


def resolve_models(sweep: Sweep, folder: RunFolder, store: Store) -> Models:
    """Finds or downloads the models, in the revisions that an earlier run of the sweep recorded (see `record_models`).

    They are used even if the Hub has newer ones by then.

    Raises:
        ModelError: if a model does not exist or its folder is unusable.
    """
    path = folder.path / MODELS
    recorded = read_as(folder.path, MODELS, dict[str, dict[str, str | None]]) if path.is_file() else {}
    found: dict[str, ModelFolder] = {}

    def resolve(reference: str) -> ModelFolder:
        repository, requested = split_reference(reference)
        revision = requested or recorded.get(reference, {}).get("revision")
        found[reference] = resolve_model(f"{repository}@{revision}" if revision else reference, store)
        return found[reference]

    return Models(
        base=resolve(sweep.model.base),
        aligned=resolve(sweep.model.aligned),
        judges={name: resolve(model) for name, model in sweep.evaluate.judge_models.items()},
        revisions={name: {"revision": one.revision, "identity": one.identity} for name, one in found.items()},
    )


def record_models(models: Models, folder: RunFolder) -> None:
    """Records the models' revisions in the run folder."""
    write_json(folder.path / MODELS, models.revisions)
    folder.publish(MODELS)


def given_adapter(section: Finetune) -> Adapter:
    """Reads the adapter of `finetune.adapter`.

    Raises:
        ModelError: if it can't be used, or `finetune.lora` does not match it.
    """
    adapter = Adapter.load(str(section.adapter))
    adapter.check_trained()
    rank = max(factors.A.shape[0] for factors in adapter.modules.values())
    targets = {module_type(name) for name in adapter.modules}
    if rank > section.lora.r or targets - set(section.lora.targets):
        raise ModelError(
            f"finetune.adapter: {section.adapter} has rank {rank} on {', '.join(sorted(targets))}; set finetune.lora.r "
            "and finetune.lora.targets to match"
        )
    return adapter
