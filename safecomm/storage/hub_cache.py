"""Models from the Hugging Face Hub, in this node's cache and at a fixed revision.

A path in the cache contains the repository and the commit (`models--ORG--NAME/snapshots/COMMIT`), so each node can
download the model of another node's path. If HF_HOME is on a shared disk, the nodes share one cache.
"""

import contextlib
import functools
import re
from pathlib import Path

from safecomm.errors import ModelError

WANTED = ["*.safetensors", "*.json", "*.model", "*.jinja"]
UNWANTED = ["consolidated*.safetensors", "params.json"]
"""Mistral's own format: a second copy of the weights, which vLLM prefers to `config.json`."""
HUB_ID = re.compile(r"(?!.*(--|\.\.|\.git$))\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", re.ASCII)
"""`ORG/NAME`, as the Hub's own `validate_repo_id` accepts it."""
REVISION = re.compile(r"[\w./-]{1,200}", re.ASCII)
TIMEOUT_SECONDS = 10.0
"""How long the Hub may take to answer."""
SNAPSHOT = re.compile(r"(.*/models--([^/]+?)--([^/]+))/snapshots/([0-9a-f]{40})(/.*)?")
SHA256 = re.compile("[0-9a-f]{64}")


def split_reference(reference: str) -> tuple[str, str | None]:
    """Returns the repository and the revision of `ORG/NAME` or `ORG/NAME@REVISION`."""
    repository, _, revision = reference.partition("@")
    return repository, revision or None


def is_hub_id(reference: str) -> bool:
    """Returns whether a model's name has the form `ORG/NAME` or `ORG/NAME@REVISION`."""
    repository, at, revision = reference.partition("@")
    return bool(HUB_ID.fullmatch(repository) and (not at or REVISION.fullmatch(revision)))


@functools.cache
def hub_fault(endpoint: str) -> str:
    """Returns why the Hub can't be used, or "" if it answers; asked once, because its client retries for minutes.

    Args:
        endpoint: the Hub's address.
    """
    from httpx2 import HTTPError  # the base class of the Hub's errors
    from huggingface_hub import get_session

    try:
        status = get_session().head(endpoint, timeout=TIMEOUT_SECONDS).status_code
    except (HTTPError, OSError) as error:
        return f"the Hub is unreachable ({type(error).__name__})"
    return f"the Hub is unreachable (HTTP status {status})" if status >= 500 else ""


def download(repository: str, revision: str | None = None) -> Path:
    """Downloads a model, or finds it in this node's cache.

    Returns:
        The snapshot's folder; its name is the commit.

    Raises:
        ModelError: if the model is not available.
    """
    from functools import partial

    from httpx2 import HTTPError
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RevisionResolutionError

    fetch = partial(snapshot_download, repository, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED)
    try:
        try:
            if not constants.HF_HUB_OFFLINE and (fault := hub_fault(constants.ENDPOINT)):
                raise ConnectionError(fault)
            folder = Path(fetch())
        except (OSError, HTTPError):
            folder = Path(fetch(local_files_only=True))  # the Hub is unreachable, but the model may be cached
    except GatedRepoError as error:
        raise ModelError(
            f"model {repository}: gated; request access on its Hub page and set HF_TOKEN, or use a local folder"
        ) from error
    except (OSError, ValueError, HTTPError, RevisionResolutionError) as error:
        raise ModelError(
            f"model {repository}: not a local folder and not available on the Hub ({type(error).__name__}); check the "
            "name or use a local folder"
        ) from error
    if is_snapshot(folder):
        with contextlib.suppress(OSError):  # the cache may be read-only
            _marker(folder).touch()
    return folder


def is_snapshot(path: Path) -> bool:
    """Returns whether a path is in a Hub cache, of this node or another one."""
    return SNAPSHOT.fullmatch(str(path)) is not None


def node_copy(path: Path) -> Path:
    """Returns a path in a Hub cache if it is complete on this node; otherwise the path in this node's own cache.

    Raises:
        ModelError: if the model is neither complete on this node nor available on the Hub.
    """
    if _marker(path).is_file():
        return path
    _, organisation, name, commit, rest = _parts(path)
    return Path(f"{download(f'{organisation}/{name}', commit)}{rest or ''}")


def revision_of(path: Path) -> str | None:
    """Returns the commit of a model in a Hub cache; None for other folders."""
    return _parts(path)[3] if is_snapshot(path) else None


def blob_digest(path: Path) -> str | None:
    """Returns 16 hex digits of a large file's SHA-256, from its name in the Hub's cache; None for other files."""
    blob = path.resolve()
    return blob.name[:16] if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name) else None


def _marker(path: Path) -> Path:
    """Returns the file that marks a snapshot as complete, since its folder exists as soon as a download starts."""
    model, _, _, commit, _ = _parts(path)
    return Path(model) / f".complete-{commit}"


def _parts(path: Path) -> tuple[str, ...]:
    found = SNAPSHOT.fullmatch(str(path))
    assert found is not None, "callers check is_snapshot"
    return found.groups()
