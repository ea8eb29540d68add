"""LoRA on CPUs: each token gets the update of its own adapter, or none without an adapter."""

import pytest
import torch

pytest.importorskip("vllm.v1.worker.cpu_worker", reason="vLLM is not installed")

from safecomm.serving.cpu_lora import expand, grouped, shrink

SLOTS, RANK, D_IN, D_OUT = 3, 2, 5, 4


@pytest.mark.parametrize("slots", [[0, 0, 0, 0], [2, -1, 0, 2], [-1, 1, 1, -1], [-1, -1, -1, -1]])
def test_every_token_gets_the_update_of_its_own_adapter(slots: list[int]) -> None:
    torch.manual_seed(0)
    A, B = torch.randn(SLOTS, 1, RANK, D_IN), torch.randn(SLOTS, 1, D_OUT, RANK)
    x, before = torch.randn(len(slots), D_IN), torch.randn(len(slots), D_OUT)
    hidden, y = torch.zeros(len(slots), RANK), before.clone()
    whose = grouped(torch.tensor(slots))
    shrink(hidden, x, A, 0.5, whose)
    expand(y, hidden, B, whose)
    for token, slot in enumerate(slots):
        update = 0.5 * (B[slot, 0] @ A[slot, 0] @ x[token]) if slot >= 0 else torch.zeros(D_OUT)
        assert torch.allclose(y[token], before[token] + update, atol=1e-6)
