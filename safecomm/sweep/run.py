"""Runs a sweep: the fine-tunes, the search, and then the best points on the report split."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.console import Console

from safecomm.cluster.session import ray_session
from safecomm.plan.data import check_data, overlaps
from safecomm.plan.files import check_files
from safecomm.plan.nodes import expected_resources, waiting_for_nodes
from safecomm.plan.placement import PhaseName
from safecomm.plan.plan import make_plan
from safecomm.plan.preflight import check_cluster, check_hub
from safecomm.search.arms import TAMPER, Trial
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.queue import TrialQueue
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.search.tampering import further_trainings
from safecomm.serving.chat import loaded_tokenizer
from safecomm.spec import Sweep
from safecomm.storage.names import JOURNAL, PLAN, SWEEP
from safecomm.storage.store import Store, write_json
from safecomm.sweep.data import store_data
from safecomm.sweep.engines import running_fleets, wait_for_engines
from safecomm.sweep.experiment import experiment
from safecomm.sweep.judges import judges_are_measured, measure_judges
from safecomm.sweep.lock import only_run
from safecomm.sweep.models import given_adapter, resolve_models
from safecomm.sweep.publish import publish, unpublished
from safecomm.sweep.stages import Stages
from safecomm.sweep.tracking import log_sweep


def run_sweep(sweep: Sweep, address: str | None, console: Console) -> Path:
    """Runs the missing parts of a sweep and publishes its results.

    Args:
        sweep: the sweep.
        address: a Ray cluster; None for the cluster of the submitted job, or else a new one on this machine.
        console: the output console for progress.

    Returns:
        The run folder, with `trials.parquet`, `pareto.json` and `report.html`.
    """
    folder = RunFolder(sweep)
    folder.path.mkdir(parents=True, exist_ok=True)
    equivalent = EquivalentPoints(sweep, ProfileCache(sweep))
    with only_run(folder.path, console.print):
        folder.fetch()
        equivalent.fetch()
        untrained = _missing(fine_tunes(sweep, equivalent), folder)
        queue = None if untrained else SearchQueue(sweep, folder.find, folder.path / JOURNAL, equivalent)
        published = queue and queue.is_done and not unpublished(sweep, folder, queue.trials)
        if queue and published and judges_are_measured(sweep, folder.path):
            _write_sweep(sweep, folder)
            publish(sweep, folder, queue, fine_tunes(sweep, equivalent))
        else:
            _run_missing(sweep, folder, equivalent, address, console)
    return folder.path


def _write_sweep(sweep: Sweep, folder: RunFolder) -> None:
    """Writes `sweep.json`. A sweep that fails its checks must not change the file of a finished run."""
    write_json(folder.path / SWEEP, sweep.resolved())
    folder.publish(SWEEP)


def _missing(trials: list[Trial], folder: RunFolder) -> list[Trial]:
    return [trial for trial in trials if not folder.find(trial)]


def _unpublished(sweep: Sweep, folder: RunFolder, queue: SearchQueue, split: str) -> list[Trial]:
    return [trial for trial in unpublished(sweep, folder, queue.trials) if trial.split == split]


def _run_missing(
    sweep: Sweep, folder: RunFolder, equivalent: EquivalentPoints, address: str | None, console: Console
) -> None:
    check_files(sweep, f"sweep {sweep.name}")
    check_data(sweep)
    if sweep.finetune.adapter:
        given_adapter(sweep.finetune)
    check_hub(sweep)
    store = Store.of(sweep.storage)
    models = resolve_models(sweep, folder, store)
    models.aligned.check_context(sweep.evaluate.max_model_len, "evaluate.max_model_len")
    judges = {f"judge {name}": model for name, model in models.judges.items()}
    for setting, model in {"model.aligned": models.aligned, **judges}.items():
        loaded_tokenizer(model.path, setting)  # before Ray starts
    with ray_session(address) as available:
        resources = expected_resources(available, sweep)
        for line in waiting_for_nodes(available, sweep):
            console.print(line, soft_wrap=True, highlight=False)
        plan = make_plan(sweep, resources, equivalent)
        write_json(folder.path / PLAN, plan.as_dict())
        folder.publish(PLAN)
        check_cluster(sweep, models.paths, resources.gpus > 0, partial(console.print, soft_wrap=True, markup=False))
        on_gpu, data = resources.gpus > 0, store_data(sweep, store)
        _write_sweep(sweep, folder)
        for line in overlaps(sweep):
            console.print(line, soft_wrap=True, markup=False)
        stages = Stages(sweep, models.base, models.aligned, store, on_gpu, models.judges, data)
        stages.measurement().check_chat_templates()

        def carry_out(phase: PhaseName, queue: TrialQueue, most: int, name: str = "") -> None:
            experiment(name or phase, queue, most, plan.trials_at_a_time(phase), stages, folder, console)
            folder.fetch()
            equivalent.fetch()

        def carry_out_all(phase: PhaseName, trials: list[Trial], name: str) -> None:
            carry_out(phase, TrialQueue(trials), len(trials), name)

        with ExitStack() as running:
            engines = running_fleets(sweep, stages, plan, console.print)
            if not sweep.cluster.phased:  # the engines start while the fine-tunes run
                fleets = running.enter_context(engines)
            carry_out_all("train", _missing(fine_tunes(sweep, equivalent), folder), "train")
            if sweep.cluster.phased:
                fleets = running.enter_context(engines)
            wait_for_engines(fleets, console.print)
            measure_judges(stages, folder.path)
            queue = SearchQueue(sweep, folder.find, folder.path / JOURNAL, equivalent)
            carry_out("search", queue, make_plan(sweep, resources, equivalent).trials)
            for split in sweep.search.reported_splits:
                carry_out_all("report", _unpublished(sweep, folder, queue, split), split)
            further = further_trainings(_unpublished(sweep, folder, queue, TAMPER))
            if not sweep.cluster.phased:
                carry_out_all("train", further, "tamper-train")
                carry_out_all("report", _unpublished(sweep, folder, queue, TAMPER), TAMPER)
        if sweep.cluster.phased and further:  # the engines have stopped, so the further training can use their GPUs
            carry_out_all("train", further, "tamper-train")
            with running_fleets(sweep, stages, plan, console.print) as fleets:
                wait_for_engines(fleets, console.print)
                carry_out_all("report", _unpublished(sweep, folder, queue, TAMPER), TAMPER)
    publish(sweep, folder, queue, fine_tunes(sweep, equivalent))
    log_sweep(sweep, folder)
