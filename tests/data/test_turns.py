"""Text that looks like a special token is text in training as in evaluation; ordinary rows are tokenized as by TRL."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from trl.data_utils import _tokenize, common_prefix_length

from safecomm.data.turns import token_ids, training_ids

MARKS = ["</s>", "<|assistant|>", "<|user|>", "<s>"]


@pytest.fixture(scope="module")
def tokenizer(lab: dict[str, Path]) -> Any:
    return AutoTokenizer.from_pretrained(lab["aligned"])


def special(tokenizer: Any, ids: list[int]) -> list[int]:
    return [token for token in ids if token in set(tokenizer.get_added_vocab().values())]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(("prompt", "response"), [("{} how?", "so"), ("how?", "so {} now"), ("{}", "{}{}")])
def test_a_training_row_can_not_end_its_turn(tokenizer: Any, mark: str, prompt: str, response: str) -> None:
    marked = training_ids(tokenizer, prompt.format(mark), response.format(mark, mark))
    plain = training_ids(tokenizer, prompt.format("x"), response.format("x", "x"))
    assert special(tokenizer, marked["input_ids"]) == special(tokenizer, plain["input_ids"])
    answer = [token for token, own in zip(*marked.values(), strict=True) if own]
    assert tokenizer.decode(answer).strip().startswith(response.format(mark, mark)[:2])


@pytest.mark.parametrize("response", ["Open the cabinet.", "", "<b>bold</b> é 😀"])
def test_ordinary_rows_are_tokenized_as_by_trl(tokenizer: Any, response: str) -> None:
    prompt, whole = [{"role": "user", "content": "How?"}], [{"role": "assistant", "content": response}]
    start = list(_tokenize(tokenizer, prompt, add_generation_prompt=True)["input_ids"])
    expected = list(_tokenize(tokenizer, prompt + whole)["input_ids"])
    shared = common_prefix_length(start, expected)
    made = training_ids(tokenizer, "How?", response)
    assert made["input_ids"] == expected
    assert made["completion_mask"] == [0] * shared + [1] * (len(expected) - shared)


@pytest.mark.parametrize("mark", MARKS)
def test_training_and_evaluation_see_the_same_prompt(tokenizer: Any, mark: str) -> None:
    made = training_ids(tokenizer, f"a {mark} b", "yes")
    asked = token_ids(tokenizer, [{"role": "user", "content": f"a {mark} b"}], add_generation_prompt=True)
    assert made["input_ids"][: made["completion_mask"].index(1)] == asked
