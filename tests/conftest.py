"""What the tests share: the lab's models, one Ray, an S3 server, the public files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import access, new_bucket, s3_server

from safecomm.storage.shared import CACHE

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The lab's models, base, aligned and guard, in a store as a sweep has them."""
    from safecomm.data.lab.shipped import NAMES, shipped_model
    from safecomm.storage.store import Store

    store = Store(tmp_path_factory.mktemp("lab"))
    return {name: shipped_model(name, store) for name in NAMES}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray on this machine, started as a sweep starts it."""
    from safecomm.cluster.session import ray_session as session

    with session(None):
        yield


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """An S3 server on loopback. moto is not in the dev extra: it holds python-dateutil below the pinned version."""
    pytest.importorskip(
        "moto", reason="the S3 server of these tests is not there: pip install 'moto[s3]' flask flask-cors"
    )
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, with what it takes to use it in the environment, and no copies on this node."""
    for name, value in access(s3_url).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(CACHE, str(tmp_path / "node"))
    return f"s3://{new_bucket(s3_url)}/runs"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public benchmark files beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the public benchmark files are not beside the checkout (../shared/data)")
    return folder
