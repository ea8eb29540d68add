"""The memory that a defense takes on the node of a trial."""

from safecomm.errors import ModelError
from safecomm.plan.memory import GIB
from safecomm.plan.shapes import ATTENTION_INPUTS, MLP_INPUTS, ModelShape, find_shape
from safecomm.serving.models import LAB
from safecomm.spec import Sweep

FLOAT32 = 4
READERS = dict.fromkeys(ATTENTION_INPUTS, "attention") | dict.fromkeys(MLP_INPUTS, "mlp")
"""Modules that read the same input, by its name."""


def node_memory(sweep: Sweep) -> list[str]:
    """Describes the memory for the moments of a model's inputs, which `safe_delta` needs; empty without it.

    A trial loads the whole aligned model on its node's CPU for them, in float32.
    """
    steps = [step for chain in sweep.arms.values() for step in chain if "moments" in step.settings.needs]
    if not steps or sweep.model.aligned.startswith(LAB):  # the lab's models are tiny
        return []
    name = steps[0].name
    if sweep.finetune.adapter:
        return [f"{name}, on a trial's node: not estimated, because the modules are those of finetune.adapter"]
    try:
        shape = find_shape(sweep.model.aligned)
        moments = moments_bytes(shape, sweep.finetune.lora.targets)
    except ModelError as error:
        return [f"{name}, on a trial's node: not estimated: {error}"]
    weights = shape.weight_bytes(FLOAT32)
    return [
        f"{name}, on a trial's node, not a GPU: about {(weights + moments) / GIB:.1f} GiB while it reads the aligned "
        f"model, {moments / GIB:.1f} GiB of it for the inputs"
    ]


def moments_bytes(shape: ModelShape, targets: list[str]) -> int:
    """Returns the size of d_in^2 numbers for each distinct input of the targets, in all layers.

    Raises:
        ModelError: if a target is not a linear module of the model.
    """
    widths = {READERS.get(name, name): d_in for name, (_, d_in) in shape.modules(targets).items()}
    return FLOAT32 * shape.layers * sum(width**2 for width in widths.values())
