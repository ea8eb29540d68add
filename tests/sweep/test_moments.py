"""A sweep measures the aligned model's inputs once for all settings of a defense, and not at all if it is simulated."""

from pathlib import Path

import pytest
import torch
import yaml
from small_sweep import LEAST

from safecomm.defenses import Adapter, Moments
from safecomm.defenses.adapter import Factors
from safecomm.defenses.weights import Weights
from safecomm.serving.models import resolve_model
from safecomm.spec import read_sweep
from safecomm.storage.store import Store
from safecomm.sweep.stages import Stages

Q = "model.layers.0.self_attn.q_proj"


def stages_of(folder: Path, engine: str) -> tuple[Stages, Path]:
    """Returns a sweep's stages and the folder of an adapter for one module."""
    sweep = LEAST | {"arms": {"one": [{"safe_delta": {"budget": 0.5}}]}, "storage": str(folder)}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep | {"evaluate": LEAST["evaluate"] | {"engine": engine}}))
    store = Store.of(str(folder))
    aligned = resolve_model("lab://aligned", store)
    stages = Stages(read_sweep(folder / "sweep.yaml"), aligned, aligned, store, on_gpu=False)
    size = Weights(aligned.path).shape(Q)[1]
    adapter = Adapter({Q: Factors(torch.randn(4, size), torch.randn(size, 4), 0.5)}, {"peft_type": "LORA"}, "made")
    return stages, store.obtain("finetune", {"made": True}, adapter.save)


@pytest.mark.parametrize("engine", ["transformers", "simulated"])
def test_every_setting_uses_the_same_moments(tmp_path: Path, engine: str) -> None:
    stages, adapter = stages_of(tmp_path, engine)
    moments = stages.moments(adapter)
    found = [
        Adapter.load(stages.realigned("safe_delta", {"budget": budget}, {"adapter": adapter, "moments": moments}))
        for budget in (0.2, 0.6)
    ]
    assert len({one.digest() for one in found}) == 2
    assert [path.name for path in moments.parent.iterdir()] == [stages.moments(adapter).name]
    assert (Moments.load(moments).source == "a simulation") == (engine == "simulated")
