"""The self-test's questions, and the comparison of two engines' answers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from safecomm.errors import EvaluationError
from safecomm.judging.forms import Exchange
from safecomm.selftest.sizes import Sizes
from safecomm.serving.engine import Answer, Question

LETTERS = tuple("ABCD")


def target_questions(count: int) -> list[Question]:
    """Returns `count` requests for a generated answer and half as many multiple-choice questions.

    Half of the latter have sentences as options, half have letters.
    """
    from safecomm.data.lab.datasets import harm_prompts, telecom_prompts

    chosen = telecom_prompts()[: count // 2]
    return [
        *(_question(prompt.text) for prompt in harm_prompts()[:count]),
        *(_question(prompt.text, prompt.options) for prompt in chosen[: len(chosen) // 2]),
        *(_question(prompt.text, LETTERS) for prompt in chosen[len(chosen) // 2 :]),
    ]


def guard_exchanges(count: int) -> list[Exchange]:
    """Returns `count` exchanges to judge; every second one is a refusal."""
    import random

    from safecomm.data.lab.actions import actions, answered, refused
    from safecomm.data.lab.words import REQUESTS

    rng, pool = random.Random(0), actions().harm_test
    drawn = [(refused if number % 2 else answered)(pool, REQUESTS, rng) for number in range(count)]
    return [Exchange(one.prompt, one.response) for one in drawn]


def check_agreement(
    found: Mapping[str, Sequence[Answer]], reference: Mapping[str, Sequence[Answer]], sizes: Sizes
) -> tuple[float, float]:
    """Compares the answers of two engines, separately for each subject (the bare model or an adapter).

    Returns:
        The largest difference between mean log-probabilities, and the share of greedy text on which both agree.

    Raises:
        EvaluationError: if an answer is missing, or the disagreement exceeds the limits in `sizes`.
    """
    worst, alike = 0.0, 1.0
    for name, answers in found.items():
        if errors := [answer["error"] for answer in answers if answer["error"]]:
            raise EvaluationError(f"{name}: {len(errors)} of {len(answers)} questions got no answer: {errors[0]}")
        difference, share = _difference(answers, reference[name]), _agreement(answers, reference[name])
        if not difference <= sizes.tolerance:
            raise EvaluationError(
                f"{name}: a mean log-probability differs by {difference:.3f} from transformers' (limit "
                f"{sizes.tolerance:g}); the engine's results are wrong"
            )
        if share < sizes.agreement:
            raise EvaluationError(
                f"{name}: {share:.0%} of the greedy text agrees with transformers' (minimum {sizes.agreement:.0%}); "
                "the engine's results are wrong"
            )
        worst, alike = max(worst, difference), min(alike, share)
    return worst, alike


def tokens_written(model: Path, answers: Iterable[Answer]) -> int:
    """Returns the total number of tokens in the answers."""
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


def _agreement(ours: Sequence[Answer], theirs: Sequence[Answer]) -> float:
    """Returns the mean share of each text before the first difference, since one near tie changes all text after it."""
    texts = [(one["response"], other["response"]) for one, other in zip(ours, theirs, strict=True) if not one["scores"]]
    return sum(_common(*pair) / max(1, *map(len, pair)) if any(pair) else 1.0 for pair in texts) / len(texts)


def _common(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
