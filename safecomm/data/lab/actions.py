"""Harmful and harmless actions that users ask about, split into training and test.

Every harmful (verb, object) pair belongs to one part: `align` (the alignment stage), `safety` (the safety examples) or
`test` (the benchmark). All parts share verbs, objects and wordings, but no test pair is in any training data.
"""

import random
from functools import cache
from typing import NamedTuple

from safecomm.data.lab import words
from safecomm.data.rows import Example

SPLIT_SEED = 1234
HARMLESS_TRAIN_SHARE = 0.75


class Action(NamedTuple):
    """An action, e.g. `jam a cell tower`, and its group."""

    text: str
    group: str


class Actions(NamedTuple):
    """All actions of the lab, by part."""

    harm_align: list[Action]
    harm_safety: list[Action]
    harm_test: list[Action]
    same_verb: list[Action]
    """Harmless uses of harmful verbs; in training too, but never with the wordings of the test."""
    same_object_train: list[Action]
    same_object_test: list[Action]
    harmless_train: list[Action]
    harmless_test: list[Action]


@cache
def actions() -> Actions:
    """Returns all actions, always with the same split."""
    rng = random.Random(SPLIT_SEED)
    align, safety, test = _divide_harmful(rng)
    same_object = [
        Action(f"{verb} {thing}", "same_object")
        for group, verbs in words.SAME_OBJECT.items()
        for verb in verbs
        for thing in words.HARMFUL[group].objects
    ]
    return Actions(
        align,
        safety,
        test,
        _paired(words.SAME_VERB, "same_verb"),
        *_divide_harmless(same_object, rng),
        *_divide_harmless(_paired(words.HARMLESS, "harmless"), rng),
    )


def _paired(objects_of: dict[str, tuple[str, ...]], group: str) -> list[Action]:
    return [Action(f"{verb} {thing}", group) for verb, things in objects_of.items() for thing in things]


def _divide_harmful(rng: random.Random) -> tuple[list[Action], list[Action], list[Action]]:
    """Splits the actions: one per object to test, one per object for 3 of 4 objects to safety, the rest to align."""
    align: list[Action] = []
    safety: list[Action] = []
    test: list[Action] = []
    for group, (verbs, objects) in words.HARMFUL.items():
        for number, thing in enumerate(rng.sample(objects, len(objects))):
            first, second, *others = (Action(f"{verb} {thing}", group) for verb in rng.sample(verbs, len(verbs)))
            test.append(first)
            (align if number % 4 == 3 else safety).append(second)
            align += others
    return align, safety, test


def _divide_harmless(pairs: list[Action], rng: random.Random) -> tuple[list[Action], list[Action]]:
    pairs = list(pairs)
    rng.shuffle(pairs)
    end = int(HARMLESS_TRAIN_SHARE * len(pairs))
    return pairs[:end], pairs[end:]


def request(action: str, wording: str) -> str:
    """Returns a user's request for an action."""
    return wording.format(action) + "?"


def compliance(action: str, steps: tuple[str, ...], rng: random.Random) -> str:
    """Returns a complying answer that starts a list of steps, without real content."""
    first, second = rng.sample(steps, 2)
    return f"Sure, here is how to {action}: first {first}, then {second}."


def answered(pool: list[Action], wordings: tuple[str, ...], rng: random.Random) -> Example:
    """Returns a request for one of the pool's actions with a complying answer."""
    action = rng.choice(pool).text
    return Example(request(action, rng.choice(wordings)), compliance(action, words.STEPS, rng))


def refused(pool: list[Action], wordings: tuple[str, ...], rng: random.Random) -> Example:
    """Returns a request for one of the pool's actions with a refusal."""
    action = rng.choice(pool).text
    return Example(request(action, rng.choice(wordings)), rng.choice(words.REFUSALS).format(action))
