"""A replacement for vLLM's LoRA matmul on CPUs that processes one adapter at a time.

vLLM's own kernel gathers the adapter's weights for every token of a step. On small models that takes four fifths of the
engine's time. It also applies the last loaded adapter to tokens that have none.

It overrides private classes of vLLM 0.29, because no setting selects the kernel. tests/serving/test_fleet.py fails if
they change.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.worker.cpu_worker import CPUWorker

Groups = Sequence[tuple[int, torch.Tensor | slice]]
"""Each adapter's slot and the rows of its tokens."""


class LoraByAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Applies adapters one after another, each to all of its tokens."""

    _groups: Groups = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Updates the mapping of tokens to adapters for the next step."""
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
    """Groups token rows by adapter slot.

    Args:
        slots: every token's slot; -1 for no adapter.
    """
    found = torch.unique(slots).tolist()
    if len(found) == 1:
        return [(found[0], slice(None))] if found[0] >= 0 else []
    return [(slot, (slots == slot).nonzero().squeeze(1)) for slot in found if slot >= 0]


def shrink(y: torch.Tensor, x: torch.Tensor, A: torch.Tensor, scale: float, groups: Groups) -> None:
    """Sets y to scale x A^T, each adapter's rows with its own A.

    Args:
        y: tokens x rank; zero for tokens without an adapter.
        x: tokens x d_in.
        A: slots x 1 x rank x d_in.
        scale: factor of the product.
        groups: the result of `grouped`.
    """
    for slot, rows in groups:
        y[rows] = scale * (x[rows].to(y.dtype) @ A[slot, 0].to(y.dtype).T)


def expand(y: torch.Tensor, x: torch.Tensor, B: torch.Tensor, groups: Groups) -> None:
    """Adds x B^T to y, each adapter's rows with its own B.

    Args:
        y: tokens x d_out.
        x: tokens x rank.
        B: slots x 1 x d_out x rank.
        groups: the result of `grouped`.
    """
    for slot, rows in groups:
        y[rows] += x[rows].to(y.dtype) @ B[slot, 0].to(y.dtype).T


class Worker(CPUWorker):  # type: ignore[misc]
    """vLLM's CPU worker, using `LoraByAdapter`."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Loads the model after registering `LoraByAdapter`, which its LoRA layers look up."""
        CpuPlatform.get_punica_wrapper = classmethod(lambda cls: f"{__name__}.{LoraByAdapter.__name__}")
        super().load_model(*args, **kwargs)
