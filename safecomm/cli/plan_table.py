"""Prints a plan."""

from rich.table import Table

from safecomm.plan.placement import Phase
from safecomm.plan.plan import Plan


def plan_tables(plan: Plan) -> list[Table | str]:
    """Returns a table of the arms, followed by lines on prompts and placement."""
    return [
        _arms(plan),
        "",
        *_work(plan),
        *_further(plan),
        *_drift(plan),
        *_placement(plan),
        *(f"Licence: {line}." for line in plan.licences),
    ]


def _arms(plan: Plan) -> Table:
    table = Table(title="Search", title_justify="left", box=None, pad_edge=False)
    table.add_column("arm")
    for column in ("settings", "distinct", "done", "remaining"):
        table.add_column(column, justify="right")
    for name, arm in plan.arms.items():
        table.add_row(name, *map(str, (arm.settings, arm.trials, arm.done, arm.trials - arm.done)))
    return table


def _work(plan: Plan) -> list[str]:
    count = "depends on the search" if plan.finetunes is None else f"{plan.finetunes} distinct"
    return [f"Fine-tunes: {count}, {plan.finetunes_done} done.", *_prompts(plan)]


def _prompts(plan: Plan) -> list[str]:
    prompts, remaining = plan.prompts, plan.trials_remaining
    if prompts.unknown:
        return [f"Prompts: unknown: {prompts.unknown}"]
    return [
        f"Prompts: {prompts.search:,} per search trial, at most {remaining * prompts.search:,} in total (less with "
        f"early stopping and stored answers); {prompts.report:,} more per reported point.",
        f"Judging: {prompts.judged:,} answers of each model on both splits, by every judge.",
        *(f"Overlap: {line}." for line in prompts.overlaps),
        *(f"Power: {line}." for line in prompts.power),
    ]


def _further(plan: Plan) -> list[str]:
    if not (found := plan.further):
        return []
    return [
        f"Further training (tamper): {found.trainings} adapters for {found.steps} steps; {found.trials} trials of "
        f"{found.prompts or 'unknown'} prompts."
    ]


def _drift(plan: Plan) -> list[str]:
    if not (found := plan.drift):
        return []
    return [
        f"Drift study: {found.trials} trials of {plan.prompts.report or 'unknown'} prompts; at most {found.finetunes} "
        f"fine-tunes and {found.measurements} measurements on the search split."
    ]


def _placement(plan: Plan) -> list[str]:
    gpus = (
        f"{plan.fleet_gpus} GPUs for the engines, {plan.finetune_gpus} for each fine-tune, at least {plan.least_gpus} "
        "in total"
    )
    hardware = gpus if plan.fleet_gpus else "no GPU"
    lines = [f"Placement: {hardware}; adapters up to rank {plan.max_lora_rank}.", *map(_phase, plan.phases)]
    return lines + [f"Memory: {line}." for line in plan.memory]


def _phase(phase: Phase) -> str:
    trials = "1 trial" if phase.trials_at_a_time == 1 else f"{phase.trials_at_a_time} trials"
    idle = f" ({phase.gpus - phase.gpus_in_use} idle)" if phase.gpus_in_use < phase.gpus else ""
    gpus = f"{phase.gpus_in_use} of {phase.gpus} GPUs in use{idle}, " if phase.gpus else ""
    time = "" if phase.hours is None else f", about {_duration(phase.hours)} (not measured)"
    return f"{phase.name.capitalize()}: {gpus}{trials} at a time{time}."


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
