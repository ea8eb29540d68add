"""Estimates how long the phases of a sweep take on data-centre GPUs.

The rates are assumptions for an H100, not measurements: 300 TFLOP/s for training (6 FLOP per parameter and token with
gradient checkpointing), 170 TFLOP/s where ZeRO-3 gathers each layer, and 8,000 generated tokens/s for an 8B model. Not
included: the start of engines, prompt processing, judging (which runs concurrently on its own engines), fine-tunes that
the search trains, and the prompts that racing saves.
"""

from dataclasses import replace

from safecomm.errors import ModelError
from safecomm.plan.data import training_tokens, written_tokens
from safecomm.plan.placement import Phase, PhaseName, Placement
from safecomm.plan.shapes import find_shape
from safecomm.search.arms import Trial
from safecomm.spec import Sweep

TRAINED = {0: 48e12, 1: 48e12, 2: 48e12, 3: 28e12}
"""ZeRO stage -> training speed per GPU, in parameters x tokens per second."""
WRITTEN = 64e12
"""Generation speed of an engine per GPU, in parameters x tokens per second."""


def hours(sweep: Sweep, placement: Placement, tuned: list[Trial], trials: dict[PhaseName, int]) -> list[Phase]:
    """Returns the phases with estimated hours; None if the size of a dataset or of the model is unknown.

    Args:
        sweep: the sweep.
        placement: its GPUs.
        tuned: the fine-tunes still to train.
        trials: phase -> the number of trials still to run.
    """
    try:
        trained, written = _rates(sweep)
    except ModelError:
        return placement.phases

    def of(phase: Phase) -> float | None:
        if not phase.gpus:
            return None
        if phase.name == "train":
            tokens = training_tokens(sweep, tuned)
            rate = trained * phase.trials_at_a_time * placement.finetune_gpus
        else:
            answers = written_tokens(sweep, phase.name)
            tokens = None if answers is None else trials[phase.name] * answers
            rate = written * placement.target_replicas
        return None if tokens is None else float(f"{tokens / rate / 3600:.3g}")

    return [replace(phase, hours=of(phase)) for phase in placement.phases]


def _rates(sweep: Sweep) -> tuple[float, float]:
    """Returns the tokens per second that a rank trains on and that an engine writes.

    Raises:
        ModelError: if the model's size is unknown.
    """
    if speed := sweep.speed:
        return speed.trained_tokens_per_second, speed.tokens_per_second
    parameters = find_shape(sweep.model.aligned).parameters
    return TRAINED[sweep.finetune.zero] / parameters, WRITTEN * sweep.cluster.target.engine_gpus / parameters
