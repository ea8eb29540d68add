"""Safe Delta keeps its budget, and compensates what it keeps as well as any other weights could."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from safecomm.data.catalog.registry import load_examples
from safecomm.data.turns import training_ids
from safecomm.defenses import Adapter, safe_delta
from safecomm.defenses.methods.safe_delta import compensated
from safecomm.defenses.moments import Moments, input_moments
from safecomm.errors import DefenseError, ModelError
from safecomm.serving.models import model_folder
from safecomm.storage.store import Store

Q, K, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"


def problem(size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Returns random A and B, and the moments of inputs that are correlated and of different size."""
    torch.manual_seed(size)
    x = (torch.randn(40, size) @ torch.randn(size, size) * torch.linspace(0.1, 3, size)).double()
    H = 2 / len(x) * x.T @ x + 0.01 * torch.eye(size, dtype=torch.float64)
    return torch.randn(3, size).double(), torch.randn(7, 3).double(), H


def cost_of(D: Tensor, H: Tensor) -> Tensor:
    """Returns what a change of a module's weights costs: trace(D H D^T) / 2."""
    return ((D @ H) * D).sum() / 2


@given(budget=st.floats(0.01, 0.99), size=st.integers(2, 20))
def test_no_other_change_with_the_kept_weights_costs_less(budget: float, size: int) -> None:
    A, B, H = problem(size)
    D = B @ compensated(A, B, H, budget)
    kept = (D == B @ A).all(0)
    assert torch.allclose((D @ H)[:, ~kept], torch.zeros((), dtype=D.dtype), atol=1e-8), "the gradient vanishes"
    dropped = torch.where(kept, B @ A, 0.0)
    assert cost_of(D, H) <= cost_of(dropped, H) + 1e-9


def test_one_kept_input_is_compensated_as_by_the_optimal_brain_surgeon() -> None:
    A, B, H = problem()
    inverse = H.inverse()
    m = int(inverse.diagonal().argmax())
    cost = ((B @ A)[:, m] ** 2).sum() / (2 * inverse[m, m])  # the paper's, of a single weight, summed over rows
    changed = compensated(A, B, H, float(cost / cost_of(B @ A, H)) * 1.0001)
    assert torch.allclose(changed, A[:, m : m + 1] @ inverse[m : m + 1] / inverse[m, m])
    assert torch.allclose(cost_of(B @ changed, H), cost)


@given(budget=st.floats(0, 0.999))
def test_inputs_are_kept_in_the_papers_order_up_to_the_budget(budget: float) -> None:
    A, B, H = problem()
    D, whole = B @ compensated(A, B, H, budget), cost_of(B @ A, H)
    kept = (D == B @ A).all(0)
    order, count = H.inverse().diagonal().argsort(descending=True), int(kept.sum())
    assert kept[order[:count]].all() and not kept[order[count:]].any()
    assert cost_of(D, H) <= budget * whole * (1 + 1e-9)
    more = order[: count + 1]
    least = (B @ A)[:, more] @ H.inverse()[more][:, more].inverse() @ (B @ A)[:, more].T
    assert least.trace() / 2 > budget * whole * (1 - 1e-9), "one more input would exceed it"


def test_the_ends_of_the_budget(make_adapter: Callable[..., Adapter], update: Callable[..., Tensor]) -> None:
    adapter = make_adapter()
    moments = Moments({"x": problem(16)[2].float()}, dict.fromkeys(adapter.modules, "x"), "random")
    assert safe_delta(adapter, moments, budget=1).adapter.modules == adapter.modules
    nothing = safe_delta(adapter, moments, budget=0)
    assert not any(update(nothing.adapter, name).any() for name in adapter.modules)
    assert nothing.modules == list(adapter.modules)


def test_moments_of_another_model_and_a_wrong_budget_are_refused(make_adapter: Callable[..., Adapter]) -> None:
    adapter = make_adapter()
    of_each = dict.fromkeys(adapter.modules, "x")
    for by_input, said in (
        ({}, "no example reaches model.layers.0.self_attn"),
        ({"x": torch.zeros(16, 16)}, "no example reaches model.layers.0.self_attn"),
        ({"x": torch.eye(4)}, "use the adapter's own model"),
    ):
        with pytest.raises(ModelError, match=said):
            safe_delta(adapter, Moments(by_input, of_each, "none"), budget=0.5)
    with pytest.raises(DefenseError, match="budget"):
        safe_delta(adapter, Moments({}, {}, "none"), budget=1.5)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield model_folder("lab://aligned", Store(tmp_path_factory.mktemp("store")))


def test_moments_are_those_of_the_models_inputs(lab: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    examples = load_examples("lab-safety", limit=3).rows
    found = input_moments(lab, [Q, K, DOWN], examples, {})
    found.save(tmp_path)
    found = Moments.load(tmp_path)
    assert found.inputs[Q] == found.inputs[K] != found.inputs[DOWN], "q_proj and k_proj read the same"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(lab).float(), AutoTokenizer.from_pretrained(lab)
    reads = []
    for one in examples:
        ids = torch.tensor([training_ids(tokenizer, one.prompt, one.response)["input_ids"]])
        reads.append(model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))[0])
    x = torch.cat(reads).detach().double()
    expected = 2 / len(x) * x.T @ x
    own = found.of(Q, len(expected))
    own.diagonal().sub_(0.01 * expected.diagonal().mean())
    assert torch.allclose(own, expected, rtol=1e-4, atol=1e-5)


def test_a_module_that_the_model_lacks_is_named(lab: Path) -> None:
    with pytest.raises(ModelError, match=r"has no module model\.layers\.99"):
        input_moments(lab, ["model.layers.99.mlp.up_proj"], load_examples("lab-safety", limit=1).rows, {})
