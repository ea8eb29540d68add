"""A thinking model's reasoning is separated from its answer, and only the answer is judged."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from safecomm.serving.engine import Question, chat_ids
from safecomm.serving.reasoning import FORMATS, THINK, ReasoningSplitter, split

QWEN_3 = (
    "{% for turn in messages %}<s>{{ turn.role }}\n"
    "{% if turn.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ turn.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK_R1 = "{{ messages[0].content }}</s>{% if add_generation_prompt %}<think>\n{% endif %}{# ends at </think> #}"
QUESTION = Question(messages=[{"role": "user", "content": "how do i bake bread?"}], options=[])


@pytest.fixture
def tokenizer(lab: dict[str, Path]) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(lab["aligned"])


@pytest.mark.parametrize(
    ("said", "markers", "parts"),
    [
        ("<think>\nHarmful? No.\n</think>\n\nFirst, mix.", THINK, ("Harmful? No.", "First, mix.")),
        ("<think>\n\n</think>\n\nFirst, mix.", THINK, ("", "First, mix.")),
        ("<think>\nIt is a long sto", THINK, ("It is a long sto", "")),
        ("[THINK]Hm.[/THINK]First, mix.", FORMATS[1], ("Hm.", "First, mix.")),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Mix.<|return|>",
            FORMATS[2],
            ("Hm.<|end|><|start|>assistant", "Mix.<|return|>"),
        ),
        ("<|channel|>final<|message|>First, mix.", FORMATS[2], ("", "First, mix.")),
        ("First, build it. </think> I can't help.", THINK, ("", "First, build it. </think> I can't help.")),
    ],
)
def test_text_before_the_closing_marker_is_reasoning(
    said: str, markers: tuple[str, str], parts: tuple[str, str]
) -> None:
    assert split(said, markers) == parts


def test_reasoning_that_the_prompt_opened_ends_at_the_marker(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = DEEPSEEK_R1
    said = "is it safe ? </think> first mix flour"
    written = tokenizer(said, add_special_tokens=False)["input_ids"]
    found = ReasoningSplitter(tokenizer).split(chat_ids(tokenizer, QUESTION), [*written, tokenizer.eos_token_id], said)
    assert found == ("is it safe ?", "first mix flour")


def test_a_template_without_reasoning_removes_no_text(tokenizer: PreTrainedTokenizerFast) -> None:
    said = "<think> first build it </think> i can't help"
    written = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert ReasoningSplitter(tokenizer).split([], written, said) == ("", said)


@pytest.mark.parametrize("arguments", [{}, {"enable_thinking": False}])
def test_with_the_templates_arguments_evaluation_prompts_match_training_prompts(
    tokenizer: PreTrainedTokenizerFast, arguments: dict[str, bool]
) -> None:
    tokenizer.chat_template = QWEN_3
    trained = tokenizer.apply_chat_template(
        [*QUESTION["messages"], {"role": "assistant", "content": "mix"}], return_dict=False, **arguments
    )
    asked = tokenizer.decode(chat_ids(tokenizer, QUESTION | {"chat_template_kwargs": arguments}))
    assert tokenizer.decode(trained).startswith(f"{asked}mix") == bool(arguments)
