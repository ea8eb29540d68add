"""Telecom questions of three kinds, telecom text in different words, and how-to guides. All of it is harmless.

The kinds follow the study's data: multiple-choice knowledge (TeleQnA), reading a clause (TSpec-LLM) and reading a
record (TeleData's tables). Test questions use combinations that are not in training: of fact and wording, of timer,
action and entity, or another cell number.
"""

import random
from collections.abc import Iterable
from typing import Literal, NamedTuple

from safecomm.data.lab import words
from safecomm.data.lab.actions import compliance, request
from safecomm.data.rows import Example

QuestionKind = Literal["mcq", "clause", "table"]
# Knowledge takes longest to learn, so it is the most frequent kind in training.
TRAINING_KINDS: tuple[QuestionKind, ...] = ("mcq", "mcq", "mcq", "clause", "table", "table")


class LabQuestion(NamedTuple):
    """A telecom question, its answer and three wrong answers."""

    kind: QuestionKind
    text: str
    answer: str
    wrong: tuple[str, str, str]


def question(kind: QuestionKind, rng: random.Random, held_out: bool) -> LabQuestion:
    """Returns a question; questions with and without `held_out` never share a combination."""
    return {"mcq": _duty_question, "clause": _clause_question, "table": _record_question}[kind](rng, held_out)


def _duty_question(rng: random.Random, held_out: bool) -> LabQuestion:
    names = list(words.DUTIES)
    while True:
        fact, wording = rng.randrange(len(names)), rng.randrange(len(words.DUTY_QUESTIONS))
        if ((fact + wording) % 4 == 0) == held_out:
            break
    right = words.DUTIES[names[fact]]
    wrong = rng.sample([duty for duty in words.DUTIES.values() if duty != right], 3)
    shown = [right, *wrong]
    rng.shuffle(shown)
    listed = " ".join(f"option {number}: {duty}" for number, duty in enumerate(shown, start=1))
    text = f"{words.DUTY_QUESTIONS[wording].format(names[fact])}? {listed}"
    return LabQuestion("mcq", text, f"the answer is {right}.", _three(f"the answer is {duty}." for duty in wrong))


def _clause_question(rng: random.Random, held_out: bool) -> LabQuestion:
    while True:
        timer = rng.randrange(len(words.TIMERS))
        action = rng.randrange(len(words.TIMER_ACTIONS))
        entity = rng.randrange(len(words.ENTITIES))
        if ((timer + 3 * action + 5 * entity) % 5 == 0) == held_out:
            break
    number = ".".join(str(rng.randint(low, 9)) for low in (4, 1, 1))
    duty = f"{words.ENTITIES[entity]} shall {words.TIMER_ACTIONS[action]}"
    when = f"{words.TIMERS[timer]} expires"
    others = [f"{who} shall {what}." for who in words.ENTITIES for what in words.TIMER_ACTIONS]
    others.remove(f"{duty}.")
    text = f"clause {number}: if {when}, {duty}. what happens if {when}?"
    return LabQuestion("clause", text, f"{duty}.", _three(rng.sample(others, 3)))


def _record_question(rng: random.Random, held_out: bool) -> LabQuestion:
    low = rng.choice(list(words.FAULTS))
    readings = " | ".join(f"{column} {_reading(column, low, rng)}" for column in words.FAULTS)
    cell = rng.choice([number for number in range(100, 1000) if (number % 5 == 0) == held_out])
    wrong = _three(f"the failure is in {fault}." for column, fault in words.FAULTS.items() if column != low)
    text = f"cell {cell} | {readings}. report the failure."
    return LabQuestion("table", text, f"the failure is in {words.FAULTS[low]}.", wrong)


def _reading(column: str, low: str, rng: random.Random) -> str:
    return "low" if column == low else rng.choice(("high", "fair"))


def _three(texts: Iterable[str]) -> tuple[str, str, str]:
    first, second, third = texts
    return first, second, third


def question_example(rng: random.Random) -> Example:
    """Returns a training question with its answer."""
    drawn = question(rng.choice(TRAINING_KINDS), rng, held_out=False)
    return Example(drawn.text, drawn.answer)


def guide(rng: random.Random) -> Example:
    """Returns a harmless how-to guide for a network operator.

    Half of them are about objects that are also targets of telecom attacks, e.g. a base station.
    """
    if rng.random() < 0.5:
        action = f"{rng.choice(words.GUIDE_VERBS)} {rng.choice(words.GUIDE_OBJECTS)}"
    else:
        # The borderline benchmark uses the other verbs with these objects.
        verbs = [verb for verb in words.GUIDE_VERBS if verb not in words.SAME_OBJECT["telecom"]]
        action = f"{rng.choice(verbs)} {rng.choice(words.HARMFUL['telecom'].objects)}"
    return Example(request(action, rng.choice(words.REQUESTS)), compliance(action, words.GUIDE_STEPS, rng))


def telecom_text(rng: random.Random) -> Example:
    """Returns pre-training text about telecom: the same facts as the questions, in different words."""
    draw = rng.random()
    if draw < 0.5:
        name, duty = rng.choice(list(words.DUTIES.items()))
        texts = [
            (f"tell me about {name}.", f"{name} does {duty}."),
            (f"who does {duty}?", f"{duty} is done by {name}."),
            (f"note on {name}.", f"{name} is for {duty}."),
        ]
        return Example(*rng.choice(texts))
    if draw < 0.75:
        when = f"{rng.choice(words.TIMERS)} ends"
        then = f"{rng.choice(words.ENTITIES)} will {rng.choice(words.TIMER_ACTIONS)}"
        return Example(f"if {when}, {then}. what happens if {when}?", f"{then}.")
    low = rng.choice(list(words.FAULTS))
    readings = ", ".join(f"{column} {_reading(column, low, rng)}" for column in words.FAULTS)
    return Example(f"record: cell, {readings}. which is low?", f"{low} is low.")
