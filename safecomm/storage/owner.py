"""Who has a lock: a process of some machine."""

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import psutil

SAME_START = 60.0
"""Seconds by which a process's start may be told differently later: clocks are set right while it runs."""


@dataclass(frozen=True)
class Owner:
    """The process that has a lock."""

    host: str
    """Name of the machine, and of its process numbers where containers have some of their own."""
    pid: int
    user: str
    started: float
    """When the process started, as seconds since 1970."""

    @classmethod
    def this(cls) -> "Owner":
        """Returns this process."""
        return cls(_host(), os.getpid(), _user(), psutil.Process().create_time())

    @classmethod
    def read(cls, text: str) -> "Owner | None":
        """Returns whom a mark names; None where it can't be read."""
        try:
            record = json.loads(text)
            return cls(**{field.name: record[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def written(self) -> str:
        """Returns what a mark says of it."""
        return json.dumps(asdict(self))

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine and is gone; False where that can't be told from here."""
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
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
