"""Runs a sweep: checks it, runs the phases that are missing, and publishes the results."""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from safecomm.cluster.ray_internals import dashboard_url
from safecomm.cluster.session import Resources, ray_session
from safecomm.plan.data import check_data, overlaps
from safecomm.plan.files import check_files
from safecomm.plan.nodes import expected_resources, waiting_for_nodes
from safecomm.plan.plan import make_plan
from safecomm.plan.preflight import check_cluster, check_hub
from safecomm.search.activity import Activity
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.serving.chat import loaded_tokenizer
from safecomm.spec import Sweep
from safecomm.storage import shared
from safecomm.storage.input_files import read_json
from safecomm.storage.names import CERTIFICATE, GUIDE, JOURNAL, PARETO, PLAN, REPORT, REPORT_ANSWERS, SWEEP, TRIALS
from safecomm.storage.store import Store, write_json
from safecomm.sweep.data import store_data
from safecomm.sweep.judges import judges_are_measured
from safecomm.sweep.lock import only_run
from safecomm.sweep.models import Models, given_adapter, record_models, resolve_models
from safecomm.sweep.phases import Phases
from safecomm.sweep.publish import publish, unpublished
from safecomm.sweep.stages import Stages
from safecomm.sweep.tracked_results import log_sweep


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
        Activity("Preparing").write(folder.path)  # otherwise that of a killed run would be shown
        equivalent.fetch()
        if queue := _finished_search(sweep, folder, equivalent):
            write_sweep(sweep, folder)
            publish(sweep, folder, queue, fine_tunes(sweep, equivalent))
        else:
            _run_missing(sweep, folder, equivalent, address, console)
    return folder.path


def _finished_search(sweep: Sweep, folder: RunFolder, equivalent: EquivalentPoints) -> SearchQueue | None:
    """Returns the search if nothing of the sweep is left to run; None otherwise."""
    if not all(folder.find(trial) for trial in fine_tunes(sweep, equivalent)):
        return None
    queue = SearchQueue(sweep, folder.find, folder.path / JOURNAL, equivalent)
    is_over = queue.is_done and not unpublished(sweep, folder, queue.trials)
    return queue if is_over and judges_are_measured(sweep, folder.path) else None


def write_sweep(sweep: Sweep, folder: RunFolder) -> None:
    """Writes `sweep.json`. A sweep that fails its checks must not change the file of a finished run.

    Results of another model, fine-tune or other benchmarks are removed first: until this sweep has its own, they would
    be read as if they were of this sweep.
    """
    resolved = sweep.resolved()
    if _describes_another(folder.path / SWEEP, resolved):
        for name in (TRIALS, PARETO, CERTIFICATE, GUIDE, REPORT, REPORT_ANSWERS):
            (folder.path / name).unlink(missing_ok=True)
    write_json(folder.path / SWEEP, resolved)
    folder.publish(SWEEP)


def _describes_another(file: Path, resolved: dict[str, Any]) -> bool:
    try:
        before = read_json(file)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    parts = ("model", "finetune", "evaluate")
    return not isinstance(before, dict) or any(before.get(part) != resolved[part] for part in parts)


def _run_missing(
    sweep: Sweep, folder: RunFolder, equivalent: EquivalentPoints, address: str | None, console: Console
) -> None:
    store = Store.of(sweep.storage)
    models = _checked_models(sweep, folder, store)
    with ray_session(address) as available:
        for line in waiting_for_nodes(available, sweep):
            console.print(line, soft_wrap=True, highlight=False)
        resources = expected_resources(available, sweep)
        phases = _phases(sweep, folder, equivalent, resources, models, store, console)
        queue = phases.run()
    publish(sweep, folder, queue, fine_tunes(sweep, equivalent))
    log_sweep(sweep, folder)


def _checked_models(sweep: Sweep, folder: RunFolder, store: Store) -> Models:
    """Checks all that can be checked before Ray starts, and returns the models."""
    check_files(sweep, f"sweep {sweep.name}")
    check_data(sweep)
    if sweep.finetune.adapter:
        given_adapter(sweep.finetune)
    check_hub(sweep)
    models = resolve_models(sweep, folder, store)
    models.aligned.check_context(sweep.evaluate.max_model_len, "evaluate.max_model_len")
    judges = {f"judge {name}": model for name, model in models.judges.items()}
    for setting, model in {"model.aligned": models.aligned, **judges}.items():
        loaded_tokenizer(model.path, setting)
    Stages(sweep, models.base, models.aligned, store, False, models.judges).measurement().check_chat_templates()
    return models


def _phases(
    sweep: Sweep,
    folder: RunFolder,
    equivalent: EquivalentPoints,
    resources: Resources,
    models: Models,
    store: Store,
    console: Console,
) -> Phases:
    """Plans the sweep, checks the cluster, stores the data, and returns the phases to run.

    It describes the sweep in the run folder once all checks have passed: one that fails must leave a finished run as it
    is.
    """
    plan, on_gpu = make_plan(sweep, resources, equivalent), resources.gpus > 0
    check_cluster(sweep, models.paths, on_gpu, partial(console.print, soft_wrap=True, markup=False))
    data = store_data(sweep, store)
    write_sweep(sweep, folder)
    record_models(models, folder)
    write_json(folder.path / PLAN, plan.as_dict())
    folder.publish(PLAN)
    watched = shlex.quote(shared.address(folder.path))
    console.print(f"To watch it in the browser: safecomm view {watched}", soft_wrap=True, markup=False)
    others = {
        "Ray's dashboard": dashboard_url(),
        "Optuna's": f"optuna-dashboard {shlex.quote(str(folder.path / JOURNAL))}",
    }
    links = "; ".join(f"{name}: {link}" for name, link in others.items() if link)
    console.print(links, soft_wrap=True, markup=False)
    for line in overlaps(sweep):
        console.print(line, soft_wrap=True, markup=False)
    stages = Stages(sweep, models.base, models.aligned, store, on_gpu, models.judges, data)
    return Phases(stages, plan, resources, folder, equivalent, console)
