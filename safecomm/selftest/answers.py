"""What the engines are asked, and how far two of them agree."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from safecomm.errors import EvaluationError
from safecomm.judging.forms import Exchange
from safecomm.selftest.sizes import Sizes
from safecomm.serving.engine import Answer, Question

LETTERS = tuple("ABCD")


def target_questions(count: int) -> list[Question]:
    """Returns so many requests to answer in words and half as many to choose an answer to, by sentence or letter."""
    from safecomm.data.lab.datasets import harm_prompts, telecom_prompts

    chosen = telecom_prompts()[: count // 2]
    return [
        *(_question(prompt.text) for prompt in harm_prompts()[:count]),
        *(_question(prompt.text, prompt.options) for prompt in chosen[: len(chosen) // 2]),
        *(_question(prompt.text, LETTERS) for prompt in chosen[len(chosen) // 2 :]),
    ]


def guard_exchanges(count: int) -> list[Exchange]:
    """Returns so many exchanges to judge, every other one a refusal."""
    import random

    from safecomm.data.lab.actions import actions, answered, refused
    from safecomm.data.lab.words import REQUESTS

    rng, pool = random.Random(0), actions().harm_test
    drawn = [(refused if number % 2 else answered)(pool, REQUESTS, rng) for number in range(count)]
    return [Exchange(one.prompt, one.response) for one in drawn]


def check_agreement(
    found: Mapping[str, Sequence[Answer]], reference: Mapping[str, Sequence[Answer]], sizes: Sizes
) -> tuple[float, float]:
    """Compares the answers of one engine with those of another, subject by subject.

    Returns:
        The largest difference of a mean log-probability, and the share of the greedy answers that both write alike.

    Raises:
        EvaluationError: if an answer is missing, or they disagree by more than the sizes allow.
    """
    worst, alike = 0.0, 1.0
    for name, answers in found.items():
        if errors := [answer["error"] for answer in answers if answer["error"]]:
            raise EvaluationError(f"{name}: {len(errors)} of {len(answers)} questions got no answer: {errors[0]}")
        difference, share = _difference(answers, reference[name]), _alike(answers, reference[name])
        if not difference <= sizes.tolerance:
            raise EvaluationError(
                f"{name}: a mean log-probability differs by {difference:.3f} from transformers' (at most "
                f"{sizes.tolerance:g}); the engine computes something else"
            )
        if share < sizes.agreement:
            raise EvaluationError(
                f"{name}: {share:.0%} of the greedy answers are as transformers writes them (at least "
                f"{sizes.agreement:.0%}); the engine computes something else"
            )
        worst, alike = max(worst, difference), min(alike, share)
    return worst, alike


def tokens_written(model: Path, answers: Iterable[Answer]) -> int:
    """Returns how many tokens the answers have."""
    from tokenizers import Tokenizer

    texts = [answer["response"] for answer in answers]
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))


def _question(text: str, options: Sequence[str] = ()) -> Question:
    return Question(messages=[{"role": "user", "content": text}], options=list(options))


def _difference(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    pairs = [
        pair
        for one, other in zip(ours, theirs, strict=True)
        for pair in zip(one["scores"], other["scores"], strict=True)
    ]
    return max(abs(one - other) for one, other in pairs)


def _alike(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """Returns the mean share of each text up to where the two part: one near tie changes all that follows it."""
    texts = [(one["response"], other["response"]) for one, other in zip(ours, theirs, strict=True) if not one["scores"]]
    return sum(_common(*pair) / max(1, *map(len, pair)) if any(pair) else 1.0 for pair in texts) / len(texts)


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
