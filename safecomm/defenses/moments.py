"""The second moments of what a model's modules read on examples: how much a change of a weight changes their outputs.

A module with the inputs x answers a change D of its weights with D x, whose mean square over the inputs is
trace(D H D^T) / 2 with H = 2 E[x x^T]. Methods of the optimal-brain-surgeon family prune and repair with H.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from safecomm.data.rows import Example
from safecomm.data.turns import training_ids
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.hardware import device
from safecomm.defenses.threads import all_threads
from safecomm.defenses.weights import open_safetensors
from safecomm.errors import ModelError
from safecomm.storage.model_files import read_object
from safecomm.storage.names import MOMENTS, MOMENTS_INDEX
from safecomm.storage.store import write_json

MOST_EXAMPLES = 128
MOST_TOKENS = 512
"""How many examples are read, and how much of each; both as in Safe Delta's code."""
DAMPING = 0.01
"""What is added to the diagonal, as a share of its mean, so that H can be inverted (as in Safe Delta's code)."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The second moments of one model's module inputs."""

    by_input: Mapping[str, Tensor]
    """H of each distinct input (d_in x d_in, float32), without damping."""
    inputs: Mapping[str, str]
    """Module -> the name of its input; modules such as q_proj and k_proj of one layer share one."""
    source: str
    """The model and the examples, for the lineage."""

    def of(self, module: str, size: int) -> Tensor:
        """Returns the damped H of a module, size x size, in float64.

        Raises:
            ModelError: if there is none, e.g. because no example reached the module, or it is for other inputs.
        """
        found = self.by_input.get(self.inputs.get(module, ""))
        if found is None or not found.diagonal().any():
            raise ModelError(f"{self.source}: no example reaches {module}; use more, or other, safety examples")
        if found.shape != (size, size):
            raise ModelError(f"{self.source}: {module} has no inputs of size {size}; use the adapter's own model")
        moments = found.to(torch.float64, copy=True)
        moments.diagonal().add_(DAMPING * float(moments.diagonal().mean()))
        return moments

    @classmethod
    def uniform(cls, adapter: Adapter) -> "Moments":
        """Returns moments as if all inputs were independent and equally large, for sweeps that compute nothing."""
        sizes = {name: factors.shape[1] for name, factors in adapter.modules.items()}
        matrices = {str(size): torch.eye(size) for size in set(sizes.values())}
        return cls(matrices, {name: str(size) for name, size in sizes.items()}, "a simulation")

    def save(self, folder: Path) -> None:
        """Writes the matrices and their index to an existing folder."""
        save_file(dict(self.by_input), folder / MOMENTS)
        write_json(folder / MOMENTS_INDEX, {"source": self.source, "inputs": dict(self.inputs)})

    @classmethod
    def load(cls, folder: Path) -> "Moments":
        """Reads what `save` wrote; the matrices are views of the memory-mapped file."""
        index, file = read_object(folder / MOMENTS_INDEX), open_safetensors(folder / MOMENTS)
        inputs = {str(module): str(name) for module, name in index["inputs"].items()}
        return cls({name: file.get_tensor(name) for name in file.keys()}, inputs, str(index["source"]))  # noqa: SIM118


@torch.no_grad()
@all_threads()
def input_moments(
    model: str | Path, modules: Collection[str], examples: Sequence[Example], chat_template_kwargs: Mapping[str, Any]
) -> Moments:
    """Runs a model on the first examples and returns the second moments of its modules' inputs.

    It is loaded whole on `device()`, in float32 if that is a CPU. The moments take d_in^2 numbers for each distinct
    input: for an 8B model 2 GB with q_proj and v_proj, 33 GB with all linear modules.

    Args:
        model: checkpoint folder.
        modules: the modules' names.
        examples: prompts and answers; `MOST_EXAMPLES` of them are used.
        chat_template_kwargs: arguments of the model's chat template.

    Raises:
        ModelError: if the model lacks a module or has non-finite inputs.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert examples, "both callers refuse an empty set"
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [
        training_ids(tokenizer, one.prompt, one.response, **chat_template_kwargs)["input_ids"][:MOST_TOKENS]
        for one in examples[:MOST_EXAMPLES]
    ]
    dtype = "auto" if device().type == "cuda" else torch.float32
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device()).eval()
    known = dict(loaded.named_modules())
    if missing := sorted(set(modules) - set(known)):
        raise ModelError(f"{model}: has no module {missing[0]}; use the model that the adapter was trained on")
    recorder = _Recorder({name: known[name] for name in modules})
    for row in rows:
        recorder.run(loaded, row)
    scale = 2 / sum(map(len, rows))
    by_input = {name: total.mul_(scale).cpu() for name, total in recorder.sums.items()}
    if broken := [name for name, one in by_input.items() if not one.isfinite().all()]:
        raise ModelError(f"{model}: the inputs of {broken[0]} are not finite; use another checkpoint")
    return Moments(by_input, recorder.inputs, f"{model} on {len(rows)} examples")


class _Recorder:
    """Adds up x x^T over the inputs of some modules, once for modules that read the same tensor."""

    def __init__(self, modules: Mapping[str, Any]):
        self._modules = modules
        self.sums: dict[str, Tensor] = {}
        self.inputs: dict[str, str] = {}

    def run(self, model: Any, row: Sequence[int]) -> None:
        """Runs the model on one example."""
        seen: dict[str, Tensor] = {}

        def record(name: str, read: Tensor) -> None:
            seen[name] = read  # kept until the end of the run, so that no later tensor takes its place in memory

        hooks = [
            module.register_forward_pre_hook(lambda _, read, name=name: record(name, read[0]))
            for name, module in self._modules.items()
        ]
        try:
            model(input_ids=torch.tensor([list(row)], device=model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        self._add(seen.items())

    def _add(self, seen: Iterable[tuple[str, Tensor]]) -> None:
        first: dict[int, str] = {}
        for name, read in seen:
            self.inputs[name] = first.setdefault(id(read), name)
            if self.inputs[name] == name:
                x = read.reshape(-1, read.shape[-1]).float()
                total = self.sums.setdefault(name, torch.zeros(x.shape[1], x.shape[1], device=x.device))
                total.addmm_(x.T, x)
