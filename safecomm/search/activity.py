"""What a running sweep is doing: written by its driver, read by `safecomm view`."""

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safecomm.errors import SafecommError
from safecomm.storage import shared
from safecomm.storage.input_files import read_json
from safecomm.storage.names import ACTIVITY
from safecomm.storage.store import write_json


@dataclass(frozen=True)
class Activity:
    """One moment of a sweep, in words."""

    line: str = ""
    """How far the experiment is, and its time left."""
    trials: list[str] = field(default_factory=list)
    """The trials that run, each with its stage."""
    fleet: str = ""
    """The pace of the engines, the questions that wait for them, and their replicas."""

    def write(self, folder: Path) -> None:
        """Writes it into a run folder; does nothing if that fails, e.g. because the disk is full."""
        with suppress(OSError, SafecommError):
            write_json(folder / ACTIVITY, asdict(self))

    @staticmethod
    def publish(folder: Path) -> None:
        """Uploads what was written last, if the run folder is in a bucket; does nothing if that fails."""
        with suppress(OSError, SafecommError):
            shared.publish(folder / ACTIVITY)

    @classmethod
    def read(cls, folder: Path) -> "Activity":
        """Returns what was written last; nothing if that is missing or damaged."""
        with suppress(OSError, ValueError, TypeError):
            found = cls(**read_json(folder / ACTIVITY))
            is_list = isinstance(found.trials, list) and all(isinstance(one, str) for one in found.trials)
            if isinstance(found.line, str) and isinstance(found.fleet, str) and is_list:
                return found
        return cls()
