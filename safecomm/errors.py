"""What can go wrong, as a user meets it.

SafecommError            exit code 1: the message names the cause and the fix
├── UsageError           exit code 2: wrong usage
│   └── SpecError        exit code 2: every mistake of one sweep file, a line each
├── DataError            a dataset or benchmark that can't be read
├── ModelError           a model or adapter folder that can't be used
├── DefenseError         a defense's settings that make no sense
├── TrainingError        a fine-tune that failed, with the step
├── EvaluationError      a fleet that did not start, or an evaluation that can't be carried out
│   └── UnansweredError  prompts without an answer through no fault of the model; asking again may help
├── StorageError         a bucket that can't be reached or used
├── DiskFullError        a folder whose disk is full; what was finished is kept
└── StoppedError         exit code 130: somebody stopped the sweep; what was finished is kept
"""

from collections.abc import Sequence


class SafecommError(Exception):
    """A mistake or failure that one clear message explains; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(SafecommError):
    """The command was used wrongly."""

    exit_code = 2


class SpecError(UsageError):
    """A sweep file has mistakes; `problems` holds a line for each, as `dotted.key: what is wrong, how to mend it`."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.source = source
        self.problems = list(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class DataError(SafecommError):
    """A dataset or benchmark can't be read, or can't give what is asked of it."""


class ModelError(SafecommError):
    """A model or adapter folder is missing, incomplete or of another make than needed."""


class DefenseError(SafecommError):
    """A defense was given settings that make no sense."""


class TrainingError(SafecommError):
    """A fine-tune failed."""


class EvaluationError(SafecommError):
    """An evaluation could not be carried out."""


class UnansweredError(EvaluationError):
    """Prompts got no answer because an engine or a server failed. It says nothing about the model; another try may."""


class StorageError(SafecommError):
    """The bucket that a sweep's `storage` names can't be reached or used."""


class DiskFullError(SafecommError):
    """A folder's disk is full, or its quota used up."""


class StoppedError(SafecommError):
    """The sweep was stopped before its end."""

    exit_code = 130
