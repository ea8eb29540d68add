"""Shared fixtures: the lab's models with adapters and prompts, a Ray session, an S3 server, the public files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from s3_server import access, new_bucket, s3_server
from small_sweep import ONE_ARM, comparable, run_sweep_file, write_sweep

from safecomm.data.rows import Prompt
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
def undisturbed(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The trials of the one-arm sweep in which nothing fails, to compare those of disturbed ones with."""
    sweep_file = write_sweep(tmp_path_factory.mktemp("undisturbed"), lab, ONE_ARM)
    run_sweep_file(sweep_file)
    return comparable(sweep_file.parent / "runs" / "small" / "trials.parquet")


@pytest.fixture(scope="session")
def adapters(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four adapters, as many as vLLM holds at once; each changes what the lab's aligned model says in its own way."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed in (1, 2, 3, 4):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(lab["aligned"])
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        folder = tmp_path_factory.mktemp("adapter")
        adapted.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    """A few prompts of every kind, enough for several chunks."""
    from safecomm.data.lab.datasets import borderline_prompts, harm_prompts, telecom_prompts

    return (*harm_prompts()[:40], *borderline_prompts()[:10], *telecom_prompts()[:20])


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
