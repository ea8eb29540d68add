"""vLLM's LoRA product on CPUs, an adapter at a time.

vLLM's own gathers the adapter's weights once for every token of a step, which takes four fifths of an engine's time on
small models, and takes a token without adapter for one of the last adapter that it holds.

It overrides internals of vLLM 0.29, where no setting chooses the product. tests/serving/test_fleet.py fails when they
move.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_worker import CPUWorker

Groups = Sequence[tuple[int, torch.Tensor | slice]]
"""Each adapter's slot and its tokens' rows."""


class LoraByAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Multiplies the tokens of an adapter with its factors, one adapter after another."""

    _groups: Groups = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Takes in which tokens of the next step are whose."""
        super().update_metadata(*args, **kwargs)
        self._groups = grouped(self.token_lora_indices)

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        shrink(y, x, w_t_all, scale, self._groups)

    def _apply_expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        assert add_inputs, "vLLM's layers add an adapter's update to their own output"
        expand(y[:, y_offset : y_offset + y_slice_size], x, w_t_all, self._groups)


def grouped(slots: torch.Tensor) -> Groups:
    """Returns each adapter's slot and its tokens' rows.

    Args:
        slots: every token's slot; -1 for none.
    """
    found = torch.unique(slots).tolist()
    if len(found) == 1:
        return [(found[0], slice(None))] if found[0] >= 0 else []
    return [(slot, (slots == slot).nonzero().squeeze(1)) for slot in found if slot >= 0]


def shrink(y: torch.Tensor, x: torch.Tensor, A: torch.Tensor, scale: float, groups: Groups) -> None:
    """Sets y to scale x A^T, each adapter's rows with its own A.

    Args:
        y: tokens x rank, zero where a token has no adapter.
        x: tokens x d_in.
        A: slots x 1 x rank x d_in.
        scale: of the product.
        groups: as `grouped` gives them.
    """
    for slot, rows in groups:
        y[rows] = scale * (x[rows].to(y.dtype) @ A[slot, 0].to(y.dtype).T)


def expand(y: torch.Tensor, x: torch.Tensor, B: torch.Tensor, groups: Groups) -> None:
    """Adds x B^T to y, each adapter's rows with its own B.

    Args:
        y: tokens x d_out.
        x: tokens x rank.
        B: slots x 1 x d_out x rank.
        groups: as `grouped` gives them.
    """
    for slot, rows in groups:
        y[rows] += x[rows].to(y.dtype) @ B[slot, 0].to(y.dtype).T


class Worker(CPUWorker):  # type: ignore[misc]
    """vLLM's worker for CPUs, with `LoraByAdapter`."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Loads the model, whose LoRA layers ask the platform for their product."""
        CpuPlatform.get_punica_wrapper = classmethod(lambda cls: f"{__name__}.{LoraByAdapter.__name__}")
        super().load_model(*args, **kwargs)
