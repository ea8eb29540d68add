"""Checks within seconds whether a cluster is reachable; Ray itself retries a dead address for minutes."""

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from safecomm.errors import SafecommError, UsageError
from safecomm.storage.input_files import parse_json
from safecomm.storage.time_limit import time_limit

CONNECT_SECONDS = 5.0
MOST_BYTES = 1 << 20
HTTP2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A client's preface and its empty settings (RFC 9113, section 3.4)."""
SETTINGS_FRAME = b"\x04"
TOKEN_FILE = Path("~/.ray/auth_token")


class ClusterError(SafecommError):
    """A cluster is unreachable, rejects our token or lacks something that a sweep needs."""


class AddressError(ClusterError, UsageError):
    """An address has the wrong form, or holds a password."""


def check_answers(address: str) -> None:
    """Checks that a cluster answers, be it at Ray's own port (`HOST:6379`) or at the dashboard's.

    Ray itself would wait more than a minute for a server that accepts connections and says nothing.

    Raises:
        ClusterError: if nothing listens there, or something else than Ray does.
    """
    refuse_credentials(address)
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        host, port = place.hostname, place.port
    except ValueError as error:  # a broken IPv6 address or port
        raise AddressError(f"--address {address}: {error}; write HOST:PORT") from error
    if not host or port is None:
        raise AddressError(f"--address {address}: write HOST:PORT")
    try:
        with time_limit(2 * CONNECT_SECONDS, "its answer"):
            if "://" in address:
                _ask_dashboard(address)
            else:
                _ask_gcs(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty or too long
        reason = getattr(error, "strerror", None) or error
        raise ClusterError(
            f"no Ray cluster at {address}: {reason}. Start one with `ray start --head`, or open a "
            "tunnel to it with `ray dashboard cluster.yaml`"
        ) from error
    except (ValueError, http.client.HTTPException) as error:
        kind = "dashboard" if "://" in address else "cluster"
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ClusterError(f"{address} is not a Ray {kind}: {said}; check the address") from error


def _ask_dashboard(address: str) -> None:
    """Asks a dashboard for its version; a rejected token is reported by Ray's client.

    Raises:
        OSError: if it does not answer.
        ValueError: if it answers with something else.
    """
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=CONNECT_SECONDS) as answer:
            found = parse_json(answer.read(MOST_BYTES).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return
        raise ValueError(f"it answers with HTTP status {error.code}") from error
    except json.JSONDecodeError as error:
        raise ValueError("its answer is not JSON") from error
    if not isinstance(found, dict) or "ray_version" not in found:
        raise ValueError("its answer names no ray_version")


def _ask_gcs(host: str, port: int) -> None:
    """Starts an HTTP/2 connection, as gRPC does, with a cluster's control store; with TLS it only connects.

    Raises:
        OSError: if it does not answer.
        ValueError: if it answers with something else than HTTP/2 settings.
    """
    with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return
        connection.sendall(HTTP2_START)
        if (said := connection.recv(9))[3:4] != SETTINGS_FRAME:
            raise ValueError(f"it answers with {said!r}")


def refuse_credentials(address: str) -> None:
    """Refuses an address with a name or password, which Ray does not use, before it is printed or stored.

    Raises:
        ClusterError: if it has one; the message does not repeat the address.
    """
    if "@" in address:
        raise AddressError(
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
