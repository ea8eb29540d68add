"""Models of many architectures are fine-tuned, realigned and judged; vLLM answers as transformers and PEFT do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from architectures import MODELS, PROMPTS, fine_tune
from finetune_ranks import launch

from safecomm.data.lab.datasets import telecom_examples

SCRIPT = Path(__file__).with_name("architectures.py")
pytestmark = [pytest.mark.vllm, pytest.mark.slow]
ALWAYS = ("gemma3_text", "phi3")
"""The models tested by default: one with sliding windows and normalized queries, one with fused modules."""
KINDS = [kind if kind in ALWAYS else pytest.param(kind, marks=pytest.mark.models) for kind in MODELS]


@pytest.fixture(scope="module")
def tuned(request: pytest.FixtureRequest, lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models that are tested, and of their adapters, from two training steps each."""
    out = tmp_path_factory.mktemp("architectures")
    data = out / "train.jsonl"
    rows = [{"prompt": example.prompt, "response": example.response} for example in telecom_examples()[:8]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tested = [item.callspec.params["kind"] for item in request.session.items if item.fspath == request.fspath]
    launch({f"{kind}/tuned": fine_tune(kind, lab["aligned"], data, out / kind) for kind in tested}, out, ranks=1)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_a_realigned_adapter_gives_the_same_answers_on_both_engines(kind: str, tuned: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), kind, str(tuned / kind)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == [] and found["modules"] == 2 * len(MODELS[kind][1])
    assert found["opened"] == 2 * 4 * len(PROMPTS), "both engines return the start that they were given"
    assert found["distinct"] == 4 * len(PROMPTS), "the bare model and each adapter have scores of their own"
    assert found["verdicts"] and set(found["verdicts"]) <= {"safe", "unsafe", "unscored"}
    assert found["largest"] < 1e-3  # of log-probabilities; kernels round differently
    assert found["same_text"] >= 0.75  # a random model's next tokens are nearly as likely as each other
