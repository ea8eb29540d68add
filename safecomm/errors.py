"""The errors that users see.

SafecommError            exit code 1: the message states the cause and the fix
├── UsageError           exit code 2: wrong usage
│   ├── SpecError        exit code 2: all mistakes in a sweep file, one per line
│   └── DefenseError     exit code 2: a defense's settings are invalid
├── DataError            a dataset or benchmark can't be read
├── ModelError           a model or adapter folder can't be used
├── TrainingError        a fine-tune failed; states the step
├── EvaluationError      a fleet did not start, or an evaluation can't be carried out
│   └── UnansweredError  prompts got no answer because of an infrastructure failure; a retry may succeed
├── StorageError         a bucket can't be reached or used
├── DiskFullError        a disk is full; finished work is kept
└── StoppedError         exit code 130: the sweep was stopped; finished work is kept
"""

import difflib
import re
from collections.abc import Iterable, Sequence

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class SafecommError(Exception):
    """A mistake or failure that one message explains; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(SafecommError):
    """A command or function was used incorrectly."""

    exit_code = 2


class SpecError(UsageError):
    """A sweep file has mistakes; `problems` has a line for each, as `dotted.key: what is wrong; how to fix it`."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.source = source
        self.problems = list(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class DataError(SafecommError):
    """A dataset or benchmark can't be read, or has too little data."""


class ModelError(SafecommError):
    """A model or adapter folder is missing, incomplete or incompatible."""


class DefenseError(UsageError):
    """A defense's settings are invalid."""


class TrainingError(SafecommError):
    """A fine-tune failed."""


class EvaluationError(SafecommError):
    """An evaluation could not be carried out."""


class UnansweredError(EvaluationError):
    """Prompts got no answer because an engine or a server failed. It says nothing about the model; another try may."""


class StorageError(SafecommError):
    """The bucket in a sweep's `storage` can't be reached or used."""


class DiskFullError(SafecommError):
    """A folder's disk is full or its quota is exhausted."""


class StoppedError(SafecommError):
    """The sweep was stopped before it finished."""

    exit_code = 130


def printable(text: str) -> str:
    r"""Returns a text with its control characters escaped, e.g. `\x1b`, so that a file can't steer the terminal.

    Newlines and tabs stay. Unicode's control characters, direction overrides and surrogates are escaped too.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def suggestion(name: object, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` for the known name that is most like a wrong one, or ""."""
    near = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
