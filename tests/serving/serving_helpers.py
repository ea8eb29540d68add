"""Helpers of the engines' tests."""

from safecomm.data.rows import Prompt
from safecomm.serving.engine import EngineSettings, Question
from safecomm.serving.protocol import EvaluationProtocol

TARGETS = ("q_proj", "v_proj")
PROTOCOL = EvaluationProtocol("vllm", max_new_tokens=12, max_model_len=128)
SETTINGS = EngineSettings(max_new_tokens=12, max_model_len=128, max_lora_rank=4, lora_targets=TARGETS)


def questions(prompts: tuple[Prompt, ...]) -> list[Question]:
    """Returns the prompts as an engine's questions."""
    return [
        Question(messages=[{"role": "user", "content": prompt.text}], options=list(prompt.options))
        for prompt in prompts
    ]
