"""Checks within a second that the files and folders that a sweep names are there, before anything heavy is imported."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safecomm.data.catalog.registry import entry_of
from safecomm.data.judgeable import missing_grader
from safecomm.data.lab.shipped import MODELS, NAMES
from safecomm.errors import SpecError, UsageError
from safecomm.plan.model_folders import Use, folder_problems
from safecomm.serving.models import CONFIG, LAB
from safecomm.spec import Sweep
from safecomm.storage.hub_cache import is_hub_id
from safecomm.storage.input_files import is_regular
from safecomm.storage.names import ADAPTER_CONFIG
from safecomm.storage.output_files import unwritable
from safecomm.storage.shared import mounted_folder


def check_files(sweep: Sweep, source: str) -> None:
    """Checks the local files and folders of a sweep.

    Args:
        sweep: the sweep.
        source: the sweep's file, for the messages.

    Raises:
        SpecError: with a line for each file or folder that is missing or can't be used.
    """
    problems = [*_models(sweep), *_datasets(sweep), *_grader(sweep), *_others(sweep), *_storage(sweep.storage)]
    if problems:
        raise SpecError(source, problems)


def check_evaluation(
    model: str,
    adapters: Sequence[Path],
    benchmarks: Sequence[str],
    labels: Path | None,
    judges: Mapping[str, str],
    storage: str,
) -> None:
    """Checks the local files and folders that `safecomm evaluate` is given.

    Args:
        model: a folder, a Hub id or a lab model.
        adapters: PEFT folders.
        benchmarks: NAME or NAME=PATH.
        labels: a file with human labels.
        judges: option -> model of those that judge answers.
        storage: the folder or bucket of the store.

    Raises:
        UsageError: with a line for each one that is missing or can't be used.
    """
    problems = [*_model("--model", model, "chat"), *_storage(storage, "--storage")]
    for option, judge in judges.items():
        problems += _model(option, judge, "engine")
    for adapter in adapters:
        problems += _adapter("--adapter", adapter)
    named = [text.partition("=") for text in benchmarks]
    for at, (name, _, path) in enumerate(named):
        problems += _benchmark(name, "--grader" in judges)
        if name in [other for other, _, _ in named[:at]]:
            problems.append(f"--benchmark {name}: is given twice; remove one")
        if path and not _exists(path):
            problems.append(f"--benchmark {name}: {path}: there is no such file or folder")
    if labels and not is_regular(labels.expanduser()):
        problems.append(f"--labels: {labels}: there is no such file")
    if problems:
        raise UsageError("\n".join(problems))


def check_requests(model: str, name: str, path: str, storage: str) -> None:
    """Checks the model and the file of prompts that `safecomm data safety` is given.

    Args:
        model: a folder, a Hub id or a lab model.
        name: the name of the prompts.
        path: their file or folder; empty for a registered dataset.
        storage: the folder or bucket of the store.

    Raises:
        UsageError: with a line for each one that is missing or can't be used.
    """
    problems = [*_model("--model", model, "chat"), *_storage(storage, "--storage")]
    if path and not _exists(path):
        problems.append(f"--prompts {name}: {path}: there is no such file or folder")
    if problems:
        raise UsageError("\n".join(problems))


def check_given(models: Mapping[str, str | None], adapters: Mapping[str, Path | None]) -> None:
    """Checks the models and adapters that options name, each by its option.

    Raises:
        UsageError: with a line for each one that is missing or can't be used.
    """
    problems = [problem for option, model in models.items() if model is not None for problem in _model(option, model)]
    problems += [problem for option, folder in adapters.items() if folder for problem in _adapter(option, folder)]
    if problems:
        raise UsageError("\n".join(problems))


def _benchmark(name: str, has_grader: bool) -> Iterator[str]:
    try:
        entry = entry_of(name)
        if not entry.is_benchmark:
            yield f"--benchmark {name}: has training examples but no prompts; `safecomm data list` shows the roles"
        elif entry.needs_grader and not has_grader:
            yield missing_grader("--grader", name)
    except UsageError as error:
        yield f"--benchmark {name:.100}: {error}"


def _adapter(key: str, folder: Path) -> Iterator[str]:
    yield from _folder(key, str(folder), ADAPTER_CONFIG, "a PEFT adapter's folder")


def _models(sweep: Sweep) -> Iterator[str]:
    context = {"evaluate.max_model_len": sweep.evaluate.max_model_len}
    yield from _model("model.base", sweep.model.base)
    yield from _model("model.aligned", sweep.model.aligned, "chat", context)
    for name, model in sweep.evaluate.judge_models.items():
        yield from _model(f"evaluate.judges ({name}): model", model, "engine")


def _model(key: str, model: str, use: Use = "weights", context: Mapping[str, int] | None = None) -> Iterator[str]:
    if model.startswith(LAB):
        if (name := model.removeprefix(LAB)) not in NAMES:
            yield f"{key}: {model}: there is no such lab model; use {', '.join(LAB + one for one in NAMES)}"
            return
        folder = MODELS / name
    elif model.startswith(("/", ".", "~")) or _exists(model):
        if problems := list(_folder(key, model, CONFIG, "a model's folder")):
            yield from problems
            return
        folder = Path(model).expanduser()
    else:
        if not is_hub_id(model):
            yield f"{key}: {model}: is neither a folder nor a Hub id; use a path, ORG/NAME or ORG/NAME@REVISION"
        return
    for problem in folder_problems(folder, use, context or {}):
        yield problem if problem.startswith(tuple(context or ())) and context else f"{key}: {problem}"


def _datasets(sweep: Sweep) -> Iterator[str]:
    for key, ref in (sweep.training_sets | sweep.evaluate.datasets).items():
        if ref.path and not _exists(ref.path):
            yield f"{key}.path: {ref.path}: there is no such file or folder"
        if ref.attack and (file := ref.attack.file) and not is_regular(Path(file[1]).expanduser()):
            yield f"{key}.attack.{file[0]}: {file[1]}: there is no such file"


def _grader(sweep: Sweep) -> Iterator[str]:
    for ref in sweep.evaluate.task:
        needs_it = ref.columns.reference if ref.columns else ref.entry.needs_grader
        if needs_it and sweep.evaluate.grader is None:
            yield missing_grader("evaluate.grader", ref.benchmark)


def _others(sweep: Sweep) -> Iterator[str]:
    if sweep.finetune.adapter:
        yield from _folder("finetune.adapter", str(sweep.finetune.adapter), ADAPTER_CONFIG, "a PEFT adapter's folder")
    files = {"evaluate.labels": sweep.evaluate.labels}
    files |= {f"evaluate.judges.{at}.template": judge.template for at, judge in enumerate(sweep.evaluate.judges)}
    for key, file in files.items():
        if file and not is_regular(Path(file).expanduser()):
            yield f"{key}: {file}: there is no such file"


def _folder(key: str, folder: str, needed: str, what: str) -> Iterator[str]:
    path = Path(folder)
    if not _exists(folder) or not (path := path.expanduser()).is_dir():
        yield f"{key}: {folder}: there is no such folder"
    elif not (path / needed).is_file():
        yield f"{key}: {folder}: has no {needed}; give {what}"


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, NUL, an unknown user
        return False


def _storage(storage: str, key: str = "storage") -> Iterator[str]:
    """Checks that a storage folder exists or can be created, and can be written to."""
    try:
        folder = mounted_folder(storage)
    except (RuntimeError, ValueError):  # an unknown user, NUL
        folder = storage
    if not storage.strip():
        yield f"{key}: is empty; choose a folder"
    elif folder is not None and (reason := unwritable(Path(folder))):
        yield f"{key}: {storage}: {reason}; choose another folder"
