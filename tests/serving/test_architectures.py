"""Adapters of many architectures are realigned, and vLLM applies the result as transformers and PEFT do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from architectures import MODELS, PROMPTS

SCRIPT = Path(__file__).with_name("architectures.py")


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_realigned_adapter_gives_the_same_answers_on_both_engines(
    kind: str, lab: dict[str, Path], tmp_path: Path
) -> None:
    command = [sys.executable, str(SCRIPT), kind, str(lab["aligned"]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == [] and found["modules"] == 2 * len(MODELS[kind][1])
    assert found["distinct"] == 4 * len(PROMPTS), "the bare model and each adapter have scores of their own"
    assert found["largest"] < 1e-3  # of log-probabilities; kernels round differently
    assert found["same_text"] >= 0.75  # a random model's next tokens are nearly as likely as each other
