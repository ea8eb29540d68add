"""The errors that users see.

SafecommError            exit code 1: the message states the cause and the fix
├── UsageError           exit code 2: wrong usage
│   └── SpecError        exit code 2: all mistakes in a sweep file, one per line
├── DataError            a dataset or benchmark can't be read
├── ModelError           a model or adapter folder can't be used
├── DefenseError         a defense's settings are invalid
├── TrainingError        a fine-tune failed; states the step
├── EvaluationError      a fleet did not start, or an evaluation can't be carried out
│   └── UnansweredError  prompts got no answer because of an infrastructure failure; a retry may succeed
├── StorageError         a bucket can't be reached or used
├── DiskFullError        a disk is full; finished work is kept
└── StoppedError         exit code 130: the sweep was stopped; finished work is kept
"""

from collections.abc import Sequence


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


class DefenseError(SafecommError):
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
