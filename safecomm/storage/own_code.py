"""User code, loaded by the dotted name in a sweep: `my_package.my_module:MyDefense`.

No other code from outside safecomm and its dependencies is run, in particular none from models, adapters or datasets.
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
    """Returns whether a name refers to user code."""
    return isinstance(name, str) and ":" in name and "://" not in name


def load(name: str) -> Any:
    """Returns the object with a dotted name.

    The module is imported from Python's search path, extended by the working directory.

    Raises:
        UsageError: if the module or attribute does not exist, or the import fails.
    """
    if not FORM.fullmatch(name):
        raise UsageError(f"{name}: write it as MODULE:NAME, e.g. {EXAMPLE}")
    module_name, _, path = name.partition(":")
    found = _module(name, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"{name}: {module_name} ({_file(found)}) has no {path}; correct the name or define it there"
            )
        found = getattr(found, part)
    return found


def short_name(name: str) -> str:
    """Returns the default name of user code: the last part of its dotted name."""
    return re.split("[.:]", name)[-1]


def refuse(name: str, problem: str) -> UsageError:
    """Returns the error for user code that does not implement its protocol; the message includes the file."""
    return UsageError(f"{name} ({_file(sys.modules[name.partition(':')[0]])}): {problem}")


@contextmanager
def as_value_error() -> Iterator[None]:
    """Turns a UsageError into a ValueError, which pydantic reports with the key in the sweep."""
    try:
        yield
    except UsageError as error:
        raise ValueError(str(error)) from error


def source_digest(name: str) -> str:
    """Returns a digest of the file that defines a dotted name, for store keys."""
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
            raise UsageError(f"{name}: {module_name} imports {missing}, which is not installed; install it") from error
        raise UsageError(
            f"{name}: there is no module {missing}; put it into the working directory ({os.getcwd()}) or install it "
            "(on every node of a cluster)"
        ) from error
    except Exception as error:  # a user's module can raise anything
        raise UsageError(f"{name}: importing {module_name} fails: {type(error).__name__}: {error}") from error


def _file(module: Any) -> str:
    return str(getattr(module, "__file__", None) or getattr(module, "__name__", module))
