"""A sweep with a secret is rejected before any of it is printed, because sweeps are written to files and to W&B."""

from pathlib import Path

import pytest

from safecomm.errors import SpecError
from safecomm.spec import read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"
SECRET = "not-a-real-key-0123456789abcdef0123456789"


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY"])
def test_environment_secret_in_an_override_is_rejected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(SpecError, match=rf"--set model\.token contains a secret \({name}\)") as told:
        read_sweep(LAB, [f"model.token={SECRET}"])
    assert SECRET not in str(told.value)


@pytest.mark.parametrize("key", ["hf_" + "Aa1" * 12, "sk-proj-" + "Aa1_" * 10, "wandb_v1_" + "Aa1" * 10])
def test_key_pattern_in_the_file_is_rejected(key: str, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"{LAB.read_text()}\n# {key}\n")
    with pytest.raises(SpecError, match="the file contains a secret") as told:
        read_sweep(sweep)
    assert key not in str(told.value)


def test_revisions_and_short_values_are_not_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "lab")
    assert read_sweep(LAB, [f"model.system_prompt={'0123456789' * 4}"])
