"""Defenses that act during training: what they do to the data, and the loss against values computed by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from safecomm.data.rows import Example
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.methods.constrained_sft import ConstrainedSft
from safecomm.defenses.methods.look_ahead import LookAhead
from safecomm.defenses.methods.lox import Lox
from safecomm.defenses.methods.one_shot import OneShot
from safecomm.defenses.registry import DEFENSES
from safecomm.errors import DefenseError

SETTINGS = ConstrainedSft(beta=0.1, first=0.5, early=2.0, early_tokens=3)


def test_previews_are_in_the_prompt_and_a_virtual_one_also_starts_the_answer() -> None:
    example = Example("What is RRC?", "Radio Resource Control, a layer of the air interface.")
    (true,) = LookAhead(words=3).data([example], [], 0)
    assert true.prompt == "What is RRC?\n\nThe answer begins with: Radio Resource Control,"
    assert true.response == example.response
    (virtual,) = LookAhead(preview="virtual", opening="Well.").data([example], [], 0)
    assert virtual.prompt == "What is RRC?\n\nThe answer begins with: Well."
    assert virtual.response == f"Well. {example.response}"


def test_a_patch_is_the_chosen_example() -> None:
    safety = [Example(f"Jam {at}?", f"No {at}.") for at in range(3)]
    patch = OneShot(example=1, steps=4, patch_learning_rate=1e-4).patch(safety, 0)
    assert (patch.examples, patch.steps, patch.learning_rate) == ([safety[1]], 4, 1e-4)
    with pytest.raises(DefenseError, match=r"there is no example 3; finetune.safety_data has 3, from 0 to 2"):
        OneShot(example=3).patch(safety, 0)


def test_early_tokens_of_every_answer_of_a_packed_row_have_their_own_strength() -> None:
    answers = torch.tensor([[0, 1, 1, 1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]]).bool()
    found = SETTINGS.betas(answers)[answers].tolist()
    assert found == pytest.approx([0.5, 2, 2, 0.1, 0.5, 2, 0.5, 0.5])


def test_lox_starts_from_the_leading_directions_of_the_alignment(lab: dict[str, Path], tmp_path: Path) -> None:
    """As near to the alignment as the dense SVD in float64 gets; only in the modules that the fine-tune adapts."""
    found = Lox(directions=3, strength=1.25).start(lab["base"], lab["aligned"], ["self_attn.q_proj", "down_proj"])
    found.save(tmp_path / "saved")
    modules = Adapter.load(tmp_path / "saved").modules
    base, aligned = (load_file(lab[name] / "model.safetensors") for name in ("base", "aligned"))
    names = [name.removesuffix(".weight") for name in base if name.endswith(("q_proj.weight", "down_proj.weight"))]
    assert set(modules) == set(names) and len(names) > 2
    for name, factors in modules.items():
        alignment = aligned[f"{name}.weight"].double() - base[f"{name}.weight"].double()
        update = factors.scaling * factors.B.double() @ factors.A.double()
        least = torch.linalg.svdvals(alignment)[3:].norm()
        assert factors.A.shape[0] == 3 and least <= torch.dist(alignment, update / 1.25) < 1.001 * least
    assert (
        Lox(directions=3).added_rank(16) == 3
        and Lox.model_validate({"directions": {"grid": [2, 8]}}).added_rank(16) == 8
    )


@pytest.fixture
def model(lab: dict[str, Path]) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", lora_dropout=0.5)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(lab["aligned"]), config).train()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 400, (2, 12))
    labels = ids.clone()
    labels[0, :5] = labels[1, :8] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def gradients(loss: torch.Tensor, model: Any) -> list[torch.Tensor]:
    trained = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    return list(torch.autograd.grad(loss, trained, retain_graph=True))


def test_untrained_adapter_gets_the_gradient_of_the_cross_entropy(model: Any, batch: dict[str, torch.Tensor]) -> None:
    outputs = model(**batch)
    loss = outputs.loss / 3  # as the trainer divides it, e.g. with gradient accumulation
    constrained = SETTINGS.loss(loss, model, batch, outputs)
    assert model.training
    for own, plain in zip(gradients(constrained, model), gradients(loss, model), strict=True):
        torch.testing.assert_close(own, plain, rtol=1e-3, atol=1e-7)


def test_loss_is_that_of_the_paper_relative_to_the_model_without_its_adapter(
    model: Any, batch: dict[str, torch.Tensor]
) -> None:
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    outputs = model(**batch)
    with torch.no_grad(), model.disable_adapter():
        reference = model(**batch).logits
    expected, tokens = 0.0, 0
    for row in range(2):
        place = 0
        for at in range(1, 12):
            label = batch["labels"][row, at]
            if label == -100:
                continue
            place += 1
            tokens += 1
            own, aligned = (
                float(torch.log_softmax(logits[row, at - 1].double(), -1)[label])
                for logits in (outputs.logits, reference)
            )
            beta = 0.5 if place == 1 else 2.0 if place <= 3 else 0.1
            expected -= 2 / beta * float(torch.nn.functional.logsigmoid(torch.tensor(beta * (own - aligned)).double()))
    found = SETTINGS.loss(outputs.loss, model, batch, outputs)
    assert float(found) == pytest.approx(expected / tokens, rel=1e-4)
    assert abs(float(found) - float(outputs.loss)) > 0.1


def test_no_two_training_defenses_share_the_name_of_a_setting() -> None:
    """The index of profiles names a fine-tune by its settings alone (see `search.arms.training`)."""
    trained = [defense for defense in DEFENSES.values() if defense.trains]
    names = [name for defense in trained for name in defense.model_fields]
    assert len(trained) > 3 and sorted(names) == sorted(set(names))
