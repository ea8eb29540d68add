"""Tokenizes chats in which text that looks like a special token stays text, so that no message can end its turn.

Training and evaluation share it: a model must not learn from tokens that it will never be asked with.
"""

import re
from typing import Any

from safecomm.storage.time_limit import time_limit

TEMPLATE_SECONDS = 10.0
"""The most time that a chat template may take for one chat; it is a program, which may never end."""


def rendered(tokenizer: Any, turns: list[dict[str, Any]], tokenize: bool = False, **how: Any) -> Any:
    """Returns a chat in the model's template, as text or as token ids. All templates run here.

    Args:
        tokenizer: the model's.
        turns: the messages.
        tokenize: whether to return token ids.
        how: `add_generation_prompt` and arguments of the template, see transformers' `apply_chat_template`.

    Raises:
        ValueError: if the template takes too long.
        Exception: whatever else goes wrong in the template.
    """
    with time_limit(TEMPLATE_SECONDS, "rendering it"):
        return tokenizer.apply_chat_template(turns, tokenize=tokenize, return_dict=False, **how)


def token_ids(tokenizer: Any, turns: list[dict[str, Any]], **how: Any) -> list[int]:
    """Returns the token ids of a chat in the model's template.

    Args:
        tokenizer: the model's.
        turns: the messages; a `content` may be a list of parts, as multimodal models take it.
        how: `add_generation_prompt` and arguments of the template, see transformers' `apply_chat_template`.
    """
    texts = [_text(turn) for turn in turns]
    if not any(token in text for text in texts for token in tokenizer.get_added_vocab()):
        return list(rendered(tokenizer, turns, tokenize=True, **how))
    blanks = {f"\ue000{index}\ue001": text for index, text in enumerate(texts)}
    masked = [_with_text(turn, blank) for turn, blank in zip(turns, blanks, strict=True)]
    return filled(tokenizer, rendered(tokenizer, masked, **how), blanks)


def filled(tokenizer: Any, form: str, contents: dict[str, str]) -> list[int]:
    """Tokenizes a form and the contents of its placeholders separately, the contents without special tokens."""
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, contents))})", form):
        text = contents.get(piece, piece)
        ids += tokenizer(text, add_special_tokens=False, split_special_tokens=piece in contents)["input_ids"]
    return ids


def training_ids(tokenizer: Any, prompt: str, response: str, **how: Any) -> dict[str, list[int]]:
    """Returns a training example's `input_ids`, and its `completion_mask`, 1 for the tokens of the answer.

    As in TRL, the answer starts where the ids of the prompt, with the start of an answer, and of the whole part.
    """
    asked = [{"role": "user", "content": prompt}]
    start = token_ids(tokenizer, asked, add_generation_prompt=True, **how)
    whole = token_ids(tokenizer, [*asked, {"role": "assistant", "content": response}], **how)
    shared = next(
        (at for at, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), min(len(start), len(whole))
    )
    return {"input_ids": whole, "completion_mask": [0] * shared + [1] * (len(whole) - shared)}


def _text(turn: dict[str, Any]) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _with_text(turn: dict[str, Any], text: str) -> dict[str, Any]:
    parts = not isinstance(turn["content"], str)
    return turn | {"content": [{"type": "text", "text": text}] if parts else text}
