"""What the tests share: a small lab, one Ray, one fleet."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).parents[2] / "shared"
SWEEPS = Path(__file__).parents[1] / "sweeps"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The lab's base and aligned models, trained for seconds: they speak, but have learnt little."""
    from safecomm.lab.build import Recipe, build_lab
    from safecomm.lab.train import Stage
    from safecomm.store import Store

    recipe = Recipe(
        base=Stage(examples=2_000, learning_rate=4e-3),
        continuation=Stage(examples=500, learning_rate=2e-3),
        alignment=Stage(examples=1_500, learning_rate=2e-3),
    )
    return build_lab(Store(tmp_path_factory.mktemp("lab")), recipe=recipe, report=lambda line: None)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Ray on this machine, started as a sweep starts it."""
    from safecomm.sweep import cluster

    with cluster.ray_session(None):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public benchmark files beside the checkout."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the public benchmark files are not beside the checkout (../shared/data)")
    return folder
