"""The rules for an arm's chain of defenses. What breaks one is a ValueError that says what to change."""

import re
from collections.abc import Iterable, Sequence

from safecomm.defenses.defense import Realignment, Selecting, TrainingDefense
from safecomm.spec.arms import REFERENCE_ARMS, Step
from safecomm.spec.finetune import Finetune

ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""Arm names are parts of file names and of W&B's run names."""


def check_chain(name: str, chain: Sequence[Step]) -> None:
    """Checks an arm's name, and the order and combination of its defenses."""
    if not ARM_NAME.fullmatch(name):
        raise ValueError(f"{name!r:.60} is no name for an arm; use up to 60 letters, digits, '.', '_' and '-'")
    if name in REFERENCE_ARMS and chain:
        raise ValueError(f"{name} is a reference arm and takes no defenses; rename this arm")
    if len({step.name for step in chain}) < len(chain):
        raise ValueError(f"{name}: a defense can appear only once in a chain; remove the repetition")
    if [step.trains for step in chain] != sorted((step.trains for step in chain), reverse=True):
        raise ValueError(f"{name}: {_training_steps(chain)}; put what trains first")
    _check_start(name, chain)


def _check_start(name: str, chain: Sequence[Step]) -> None:
    """Checks that the other defenses can act on an adapter that was trained on top of another."""
    starts = starts_of(chain)
    if len(starts) > 1:
        raise ValueError(f"{name}: {' and '.join(starts)} each change the model that is trained; keep one of them")
    if starts and (losses := losses_of(chain)):
        raise ValueError(
            f"{name}: the loss of {losses[0]} may switch the adapter off, and with it what {starts[0]} adds to the "
            "model; keep one of them"
        )
    if starts and (equal := equal_ranks_of(chain)):
        raise ValueError(
            f"{name}: {starts[0]} raises the adapter's rank, but {equal[0]} merges factors of equal ranks; set "
            "combine: cat or svd"
        )


def check_inputs(steps: Iterable[Step], finetune: Finetune) -> None:
    """Checks that the `finetune` section defines what the defenses need."""
    steps = list(steps)
    for step in steps:
        if {"safety_data", "moments"} & set(step.settings.needs) and finetune.safety_data is None:
            raise ValueError(f"{step.name} needs safety examples; set finetune.safety_data to a dataset")
        if step.trains and finetune.adapter:
            raise ValueError(
                f"{_training_steps(steps)}, but finetune.adapter is already trained; remove that from the arms, or "
                "replace finetune.adapter by finetune.data"
            )
        if "safe" in step.settings.needs and finetune.safe_adapter is None:
            raise ValueError(f"{step.name} needs a safe adapter; set finetune.safe_adapter")


def check_module_types(name: str, chain: Sequence[Step], finetune: Finetune) -> None:
    """Checks that selection criteria are for module types that the adapter has."""
    types = {target.rpartition(".")[2] for target in finetune.lora.targets}
    for step in chain:
        given = {kind for _, value in step.settings if isinstance(value, dict) for kind in value}
        if isinstance(step.settings, Selecting) and (unknown := sorted(given - types)):
            raise ValueError(
                f"{name}: {step.name} selects among {unknown[0]} modules, but finetune.lora.targets has only "
                f"{', '.join(sorted(types))}"
            )


def starts_of(chain: Sequence[Step]) -> list[str]:
    """Returns the defenses that give the fine-tune an adapter to start on top of."""
    return [step.name for step in chain if isinstance(step.settings, TrainingDefense) and step.settings.has_start]


def losses_of(chain: Sequence[Step]) -> list[str]:
    """Returns the defenses that change the loss."""
    return [step.name for step in chain if isinstance(step.settings, TrainingDefense) and step.settings.has_loss]


def equal_ranks_of(chain: Sequence[Step]) -> list[str]:
    """Returns the defenses that merge only adapters of equal ranks."""
    return [step.name for step in chain if isinstance(step.settings, Realignment) and step.settings.needs_equal_ranks]


def _training_steps(steps: Iterable[Step]) -> str:
    names = list(dict.fromkeys(step.name for step in steps if step.trains))
    return f"{' and '.join(names)} act{'s' if len(names) == 1 else ''} during training"
