"""Checks within seconds whether a cluster is reachable; Ray itself retries a dead address for minutes."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from safecomm.errors import SafecommError

CONNECT_SECONDS = 5.0
TOKEN_FILE = Path("~/.ray/auth_token")


class ClusterError(SafecommError):
    """A cluster is unreachable, rejects our token or lacks something that a sweep needs."""


def check_answers(address: str) -> None:
    """Checks that a cluster's port accepts connections, be it Ray's own (`HOST:6379`) or the dashboard's.

    Raises:
        ClusterError: if nothing listens there.
    """
    refuse_credentials(address)
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError as error:  # a broken IPv6 address or port
        raise ClusterError(f"--address {address}: {error}; write HOST:PORT") from error
    if not host or port is None:
        raise ClusterError(f"--address {address}: write HOST:PORT")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"no Ray cluster at {address}: {reason}. Start one with `ray start --head`, or open a "
            "tunnel to it with `ray dashboard cluster.yaml`"
        ) from error


def refuse_credentials(address: str) -> None:
    """Refuses an address with a name or password, which Ray does not use, before it is printed or stored.

    Raises:
        ClusterError: if it has one; the message does not repeat the address.
    """
    if "@" in address:
        raise ClusterError(
            "--address: holds a name or password, which Ray does not use; write HOST:PORT or http://HOST:PORT, and "
            "set a token with RAY_AUTH_MODE=token"
        )


def check_ray_address(address: str) -> None:
    """Checks the address that a driver will connect to.

    Raises:
        ClusterError: if nothing listens there, or the address is a dashboard's.
    """
    refuse_credentials(address)
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"--address {address}: is a dashboard address; use `safecomm submit` to send a sweep there. On a node of "
            "the cluster, use `safecomm run --address auto`"
        )
    if ":" in address:  # not `auto` or `local`
        check_answers(address)


def token_state() -> str:
    """Describes whether this process has a Ray token and where it comes from; never returns the token."""
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return f"off here (RAY_AUTH_MODE is {os.environ.get('RAY_AUTH_MODE') or 'not set'})"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "on, from RAY_AUTH_TOKEN"
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_FILE).expanduser()
    return f"on, from {file}" if file.is_file() else f"on, but there is no token in {file}"


def refused(address: str) -> ClusterError:
    """Returns the error for a cluster that rejects our token."""
    return ClusterError(
        f"the cluster at {address} does not accept the token; token authentication is {token_state()}. Set "
        "RAY_AUTH_MODE=token and copy the cluster's token to this machine (~/.ray/auth_token or RAY_AUTH_TOKEN_PATH)"
    )
