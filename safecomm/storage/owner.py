"""The owner of a lock: a process on some machine."""

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import psutil

SAME_START = 60.0
"""Tolerance when comparing process start times: clock adjustments shift the reported start."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    host: str
    """Hostname, plus the PID namespace where containers may reuse PIDs."""
    pid: int
    user: str
    started: float
    """Start time of the process, as a Unix timestamp."""

    @classmethod
    def this(cls) -> "Owner":
        """Returns the current process."""
        return cls(_host(), os.getpid(), _user(), psutil.Process().create_time())

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """Parses a lease record's text; returns None if it is invalid."""
        try:
            record = json.loads(text)
            return cls(**{field.name: record[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def written(self) -> str:
        """Returns the text of a lease record."""
        return json.dumps(asdict(self))

    @property
    def is_dead(self) -> bool:
        """Whether the process ran on this machine and has ended; False if it runs on another machine."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.started) > SAME_START
            return is_another or bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} of {self.user} on {self.host.partition(' ')[0]}, started {since}"


def _host() -> str:
    numbering = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(numbering)}" if numbering.exists() else socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container user without a passwd entry
        return str(os.getuid())
