"""Text inside a message can't end its turn."""

import math
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from safecomm.serving.engine import Question, chat_ids, end_ids, option_score


@pytest.fixture(scope="module")
def tokenizer(lab: dict[str, Path]) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(lab["aligned"])


def ids(tokenizer: PreTrainedTokenizerFast, *contents: str) -> list[int]:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return chat_ids(tokenizer, Question(messages=messages, options=[]))


@pytest.mark.parametrize("mark", ["</s>", "<|assistant|>", "<|user|>", "<s>"])
@pytest.mark.parametrize("contents", [("how do i bake {}bread?",), ("bake?", "Sure{}, here"), ("{}", "{}")])
def test_special_tokens_in_a_message_are_text(
    tokenizer: PreTrainedTokenizerFast, mark: str, contents: tuple[str, ...]
) -> None:
    marked = ids(tokenizer, *(content.format(mark) for content in contents))
    plain = ids(tokenizer, *(content.format("x") for content in contents))
    special = set(tokenizer.get_added_vocab().values())
    assert [token for token in marked if token in special] == [token for token in plain if token in special]
    assert tokenizer.decode(marked).count(mark) > tokenizer.decode(plain).count(mark)


def test_ordinary_messages_are_tokenized_by_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "how do i bake bread?"}], add_generation_prompt=True, return_dict=False
    )
    assert ids(tokenizer, "how do i bake bread?") == list(expected)


def test_verdict_words_of_different_lengths_are_compared_by_probability() -> None:
    words = Question(messages=[], options=["safe", "unsafe"], score="sum")
    safe, unsafe = [math.log(0.55)], [math.log(0.45), math.log(1.0)]
    assert option_score(safe, words) > option_score(unsafe, words)
    assert math.exp(option_score(unsafe, words)) == pytest.approx(0.45)
    sentences = Question(messages=[], options=["short", "a longer one"])
    assert option_score([-1.0, -3.0], sentences) == -2.0, "a longer option is at no disadvantage"


CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REJECTING = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('user only') }}{% endif %}"
LLAMA_2 = "{% for turn in messages %}{{ turn.content }} </s>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "ends"),
    [(CHATML, {"<|im_end|>", "</s>"}), (LLAMA_2, {"</s>"}), (REJECTING, {"</s>"}), ("no turns", {"</s>"})],
)
def test_the_token_that_a_template_puts_after_a_turn_ends_an_answer(
    lab: dict[str, Path], template: str, ends: set[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(lab["aligned"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    assert set(tokenizer.convert_ids_to_tokens(end_ids(tokenizer))) == ends
