"""The model that `evaluate` and `data safety` ask, and what it runs on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safecomm.spec.engine import available_engine

if TYPE_CHECKING:
    from safecomm.judging.comparison import Hardware
    from safecomm.serving.models import ModelFolder
    from safecomm.storage.store import Store

DEFAULT_LENGTH = 2048
"""Maximum tokens of a prompt and its answer together, for models with at least this context length."""


@dataclass(frozen=True)
class AskedModel:
    """A model with the store of its answers, the engine and the hardware."""

    folder: "ModelFolder"
    store: "Store"
    engine: str
    length: int
    """Maximum tokens of a prompt and its answer together."""
    hardware: "Hardware"


def asked_model(
    model: str,
    storage: str,
    engine: str,
    max_model_len: int | None,
    replicas: int,
    tensor_parallel: int,
    address: str | None,
) -> AskedModel:
    """Returns what the options of those names say; downloads the model if necessary.

    Raises:
        ModelError: if the model can't be used.
        UsageError: if it has a shorter context.
    """
    from safecomm.judging.comparison import Hardware
    from safecomm.serving.models import resolve_model
    from safecomm.spec.cluster import Replicas
    from safecomm.storage.store import Store

    store = Store.of(storage)
    folder = resolve_model(model, store)
    length = max_model_len or min(DEFAULT_LENGTH, folder.context or DEFAULT_LENGTH)
    folder.check_context(length, "--max-model-len")
    target = Replicas(replicas=replicas, tensor_parallel=tensor_parallel)
    hardware = Hardware(target, Replicas(replicas=replicas), address)
    return AskedModel(folder, store, available_engine() if engine == "auto" else engine, length, hardware)
