"""Text inside a message can't end its turn."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from safecomm.serving.engine import Question, chat_ids


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


def test_ordinary_messages_are_tokenized_as_the_template_says(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": "how do i bake bread?"}], add_generation_prompt=True, return_dict=False
    )
    assert ids(tokenizer, "how do i bake bread?") == list(expected)
