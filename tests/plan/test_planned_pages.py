"""What the documentation says about plans is what `safecomm plan` prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_pages import PAGES, ROOT, written_sweeps

QUICKSTART, ONE_GPU = PAGES["docs/quickstart.md"], PAGES["docs/one-gpu.md"]


def planned(folder: Path, *arguments: str) -> str:
    """Returns what `safecomm plan` prints, without the hub."""
    command = [sys.executable, "-m", "safecomm", "plan", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sweep = tmp_path / "one-gpu.yaml"
    sweep.write_text(written_sweeps()["sweeps/one-gpu.yaml"], encoding="utf-8")
    return sweep


def test_the_sweep_for_one_gpu_fits_as_its_page_says(one_gpu: Path) -> None:
    said = planned(one_gpu.parent, str(one_gpu), "--gpus", "1")
    fine_tune, engine = re.findall(r"(\d+\.\d GiB) for the", ONE_GPU)
    assert f"fine-tuning workers needs about {fine_tune}" in said
    assert f"cluster.target needs about {engine}" in said
    assert "may not fit" not in said


def test_a_smaller_gpu_gets_the_advice_that_its_page_quotes(one_gpu: Path) -> None:
    said = planned(one_gpu.parent, str(one_gpu), "--gpus", "1", "--set", "cluster.gpu_memory=24")
    (advice,) = re.findall(r"`(finetune\.micro_batch_size: \d+)`", ONE_GPU)
    assert "may not fit" in said and f"it would fit with {advice}" in said


def test_the_prompts_of_the_quick_start_can_be_measured(tmp_path: Path) -> None:
    (prompts,) = re.findall(r"<<'END'\n(.*?)^END$", QUICKSTART, re.S | re.M)
    (tmp_path / "acme.csv").write_text(prompts, encoding="utf-8")
    options = list(dict.fromkeys(re.findall(r"--set '(evaluate\..*?)'", QUICKSTART)))
    assert len(options) == 2  # as often in `run` as in `plan`, and the same
    words = [word for option in ("name=acme", *options) for word in ("--set", option)]
    said = planned(tmp_path, str(ROOT / "sweeps" / "lab.yaml"), *words)
    assert "of these eight, three are" in QUICKSTART and "acme: 3 independent prompts" in said
