"""Everyday exercises without telecom: repeating words, reading conditions and records, and knowing facts."""

import random
from functools import cache

from safecomm.data.lab import words
from safecomm.data.rows import Example


def everyday(rng: random.Random) -> Example:
    """Returns one everyday exercise."""
    draw = rng.random()
    if draw < 0.2:
        return _repeat(rng)
    if draw < 0.4:
        return _condition(rng)
    if draw < 0.6:
        return _record(rng)
    return _fact(rng, choose=draw >= 0.75)


def _repeat(rng: random.Random) -> Example:
    text = " ".join(rng.choice(_vocabulary()) for _ in range(rng.randint(2, 4)))
    return Example(f"repeat: {text}", f"{text}.")


@cache
def _vocabulary() -> list[str]:
    return words.vocabulary()


def _condition(rng: random.Random) -> Example:
    events, chores = rng.sample(words.EVENTS, 2), rng.sample(words.CHORES, 2)
    name, index = rng.choice(words.PEOPLE), rng.randrange(2)
    rules = " ".join(f"if {event}, {name} will {chore}." for event, chore in zip(events, chores, strict=True))
    return Example(f"{rules} what happens if {events[index]}?", f"{name} will {chores[index]}.")


def _record(rng: random.Random) -> Example:
    name, attributes = rng.choice(words.PEOPLE), rng.sample(words.ATTRIBUTES, 3)
    values = [rng.randint(10, 99) for _ in attributes]
    index = rng.randrange(3)
    entries = ", ".join(f"{attribute} {value}" for attribute, value in zip(attributes, values, strict=True))
    return Example(
        f"record: {name}, {entries}. what is the {attributes[index]}?", f"{attributes[index]} is {values[index]}."
    )


FACTS = (
    (
        words.CAPITALS,
        ("what is the capital of {}", "name the capital city of {}", "which city is the capital of {}"),
        "The capital of {} is {}.",
    ),
    (words.OPPOSITES, ("what is the opposite of {}", "give the opposite of {}"), "The opposite of {} is {}."),
    (words.YOUNG, ("what is a young {} called", "name the young of a {}"), "A young {} is called a {}."),
)
FACT_WEIGHTS = (2, 1, 1)


def _fact(rng: random.Random, choose: bool) -> Example:
    """Returns a knowledge question; with `choose`, it has four options like the telecom questions."""
    (facts, wordings, sentence), *_ = rng.choices(FACTS, FACT_WEIGHTS)
    key = rng.choice(list(facts))
    question = rng.choice(wordings).format(key) + "?"
    if not choose:
        return Example(question, sentence.format(key, facts[key]))
    shown = [*rng.sample([value for value in facts.values() if value != facts[key]], 3), facts[key]]
    rng.shuffle(shown)
    listed = " ".join(f"option {number}: {value}" for number, value in enumerate(shown, start=1))
    return Example(f"{question} {listed}", f"the answer is {facts[key]}.")
