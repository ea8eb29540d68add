"""Training defenses change what is trained: their loss has a gradient, through the model's logits too."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from finetune_ranks import launch

from safecomm.data.lab.datasets import telecom_examples
from safecomm.defenses.adapter import Adapter
from safecomm.finetune.job import FinetuneJob
from safecomm.spec import Finetune

pytestmark = pytest.mark.slow

OWN = """
from typing import ClassVar

from safecomm.defenses import TrainingDefense


class SmallLogits(TrainingDefense):
    \"\"\"Train small logits, and nothing else.\"\"\"

    name: ClassVar[str] = "small_logits"

    def loss(self, loss, model, inputs, outputs):
        return outputs.logits.float().square().mean()
"""


@pytest.fixture(scope="module")
def trained(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tunes of one step without a defense and with constrained_sft, and of ten steps for small logits."""
    out = tmp_path_factory.mktemp("losses")
    (out / "small_logits.py").write_text(OWN)
    data = out / "train.jsonl"
    rows = [{"prompt": one.prompt, "response": one.response} for one in telecom_examples()[:64]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Finetune.model_validate(
        {"data": ["lab-telecom"], "batch_size": 16, "learning_rate": 2e-3, "max_length": 128, "schedule": "constant"}
    )
    plain = FinetuneJob.of(section, model=lab["aligned"], data=data, workers=1, seed=0, steps=1)
    constrained = replace(plain, losses=(("constrained_sft", {}, ""),))
    small = replace(plain, steps=10, zero=3, losses=(("small_logits:SmallLogits", {}, ""),))
    jobs = {"plain": plain, "constrained": constrained, "small": small}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(out), os.environ.get("PYTHONPATH", "")]))
        launch({name: asdict(job) for name, job in jobs.items()}, out, ranks=1)
    return out


def test_constrained_sft_starts_with_the_step_of_the_cross_entropy(trained: Path) -> None:
    """As long as the adapter changes nothing, both losses have the same gradient."""
    plain, constrained = (Adapter.load(trained / name) for name in ("plain", "constrained"))
    for name, factors in plain.modules.items():
        assert factors.B.norm() > 0
        torch.testing.assert_close(constrained.modules[name].B, factors.B, rtol=0.02, atol=1e-6)


def test_a_loss_of_the_logits_alone_is_trained(trained: Path) -> None:
    losses = json.loads((trained / "small" / "rank0.json").read_text())["losses"]
    assert len(losses) == 10
    assert losses[-1] < 0.8 * losses[0]
