"""A user's own code, by the dotted name that a sweep gives: `my_package.my_module:MyDefense`.

This is the only code that safecomm runs and did not ship. Nothing that a model, an adapter or a dataset brings is run.
"""

import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safecomm.errors import UsageError
from safecomm.storage.store import digest

FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
EXAMPLE = "my_package.my_module:MyClass"


def is_dotted(name: object) -> bool:
    """Tells whether a name means a user's own code."""
    return isinstance(name, str) and ":" in name and "://" not in name


def load(name: str) -> Any:
    """Returns what a dotted name stands for.

    The module is looked for where Python looks for modules, and in the working directory.

    Raises:
        UsageError: with the name, where there is no such module or attribute, or the module fails to load.
    """
    if not FORM.fullmatch(name):
        raise UsageError(f"{name}: write it as MODULE:NAME, e.g. {EXAMPLE}")
    module_name, _, path = name.partition(":")
    found = _module(name, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"{name}: {module_name} ({_file(found)}) has no {path}; correct the name, or define it there"
            )
        found = getattr(found, part)
    return found


def short_name(name: str) -> str:
    """Returns what code is called where nothing else is said: the last part of its dotted name."""
    return re.split("[.:]", name)[-1]


def refuse(name: str, problem: str) -> UsageError:
    """Returns the error for code that does not follow the protocol of its kind, with its file."""
    return UsageError(f"{name} ({_file(sys.modules[name.partition(':')[0]])}): {problem}")


@contextmanager
def as_value_error() -> Iterator[None]:
    """Lets pydantic report what is wrong with a user's own code, at the code's place in the sweep."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from error


def source_digest(name: str) -> str:
    """Returns what stands for the code: a digest of the file that a dotted name points to."""
    load(name)
    path = inspect.getsourcefile(sys.modules[name.partition(":")[0]])
    return digest(Path(path).read_text(encoding="utf-8")) if path else ""


@functools.cache
def _search_the_working_directory(folder: str) -> None:
    if folder not in map(os.path.abspath, sys.path):
        sys.path.append(folder)


def _module(name: str, module_name: str) -> Any:
    _search_the_working_directory(os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if not f"{module_name}.".startswith(f"{missing}."):
            raise UsageError(f"{name}: {module_name} imports {missing}, which is not installed") from error
        raise UsageError(
            f"{name}: there is no module {missing}; put it into the working directory ({os.getcwd()}) or install it, "
            "on a cluster on every node"
        ) from error
    except Exception as error:  # whatever a user's module raises is the user's to read
        raise UsageError(f"{name}: importing {module_name} fails: {type(error).__name__}: {error}") from error


def _file(module: Any) -> str:
    return str(getattr(module, "__file__", None) or getattr(module, "__name__", module))
