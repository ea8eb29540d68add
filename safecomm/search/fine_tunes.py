"""The fine-tunes that a sweep's arms share. Each is trained once, before the search."""

from safecomm.defenses.registry import defense_of
from safecomm.search.arms import Trial, realignments, training, training_steps
from safecomm.search.equivalence import EquivalentPoints
from safecomm.spec import Sweep

TRAIN = "train"
"""The split of a trial that trains an adapter and measures nothing."""
SAFE_ADAPTER = "safe_adapter"


def fine_tunes(sweep: Sweep, equivalent: EquivalentPoints) -> list[Trial]:
    """Returns one trial per distinct fine-tune and seed, the plain one first, except those left to the search."""
    chains = [(), *(chain for arm in sweep.arms for chain in equivalent.trainings(arm) or [])]
    merges = any("safe" in step.settings.needs for chain in sweep.arms.values() for step in chain)
    trials = [Trial("finetune", training(chain), chain, seed, TRAIN) for chain in chains for seed in range(sweep.seeds)]
    if merges:
        trials += [_safe_adapter(seed) for seed in range(sweep.seeds)]
    return list({trial.id: trial for trial in trials}.values())


def fine_tunes_of(trial: Trial) -> list[Trial]:
    """Returns the fine-tune that a trial starts from and, if the trial merges, the safe adapter's."""
    chain = training_steps(trial.chain)
    plain = Trial("finetune", training(chain), chain, trial.seed, TRAIN)
    merges = any("safe" in defense_of(name).needs for name, _ in realignments(trial.chain))
    return [plain, _safe_adapter(trial.seed)] if merges else [plain]


def _safe_adapter(seed: int) -> Trial:
    return Trial(SAFE_ADAPTER, {}, (), seed, TRAIN)
