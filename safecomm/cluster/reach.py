"""Whether a cluster answers, told within seconds: Ray itself tries a dead address for minutes."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from safecomm.errors import SafecommError

CONNECT_SECONDS = 5.0
TOKEN_FILE = Path("~/.ray/auth_token")


class ClusterError(SafecommError):
    """A cluster can't be reached, lets nobody in, or lacks what a sweep needs."""


def check_answers(address: str) -> None:
    """Tries the port of a cluster's address, be it Ray's own (`HOST:6379`) or the dashboard's.

    Raises:
        ClusterError: where nobody listens there.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError as error:
        raise ClusterError(f"--address {address}: {error}; write HOST:PORT") from error
    if host is None or port is None:
        raise ClusterError(f"--address {address}: write HOST:PORT")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster at {address}: {error.strerror or error}. Start one with `ray start --head`, or open a "
            "tunnel to it with `ray dashboard cluster.yaml`"
        ) from error


def check_ray_address(address: str) -> None:
    """Checks an address that a driver is to connect to.

    Raises:
        ClusterError: where nobody listens there, or a dashboard does.
    """
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address}: is a dashboard's; `safecomm submit` sends a sweep there. A run on one of the "
            "cluster's own nodes takes --address auto"
        )
    if ":" in address:  # not `auto` or `local`
        check_answers(address)


def token_state() -> str:
    """Says in words whether this process has a token for Ray, and where from; never the token."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return f"off here (RAY_AUTH_MODE is {os.environ.get('RAY_AUTH_MODE') or 'not set'})"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "on, from RAY_AUTH_TOKEN"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
    return f"on, from {file}" if file.is_file() else f"on, but there is no token in {file}"


def refused(address: str) -> ClusterError:
    """Returns what to say where a cluster does not take our token."""
    return ClusterError(
        f"the cluster at {address} does not take the token; token authentication is {token_state()}. Set "
        "RAY_AUTH_MODE=token and bring the cluster's token to this machine (~/.ray/auth_token, or RAY_AUTH_TOKEN_PATH)"
    )
