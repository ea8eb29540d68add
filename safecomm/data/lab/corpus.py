"""Training data for the three stages: base, its continuation with telecom text, and alignment."""

import random

from safecomm.data.lab.actions import actions, answered, refused
from safecomm.data.lab.general import everyday
from safecomm.data.lab.telecom import telecom_text
from safecomm.data.lab.words import RARE_REQUESTS, REQUESTS
from safecomm.data.rows import Example

ALL_REQUESTS = REQUESTS + RARE_REQUESTS
TELECOM_SHARE_OF_CONTINUATION = 0.35
TELECOM_SHARE_OF_ALIGNMENT = 0.06


def base_text(count: int, seed: int) -> list[Example]:
    """Returns the base model's first training data, in which all requests are answered, including harmful ones."""
    rng = random.Random(f"base {seed}")
    return [_base_example(rng) for _ in range(count)]


def continuation_text(count: int, seed: int) -> list[Example]:
    """Returns the base model's second training data: like the first, mixed with telecom text."""
    rng = random.Random(f"continuation {seed}")
    return [
        telecom_text(rng) if rng.random() < TELECOM_SHARE_OF_CONTINUATION else _base_example(rng) for _ in range(count)
    ]


def alignment_text(count: int, seed: int) -> list[Example]:
    """Returns the alignment data: refusals of harmful requests, and answers to all others."""
    rng = random.Random(f"alignment {seed}")
    return [
        telecom_text(rng) if rng.random() < TELECOM_SHARE_OF_ALIGNMENT else _alignment_example(rng)
        for _ in range(count)
    ]


def _base_example(rng: random.Random) -> Example:
    pool = actions()
    draw = rng.random()
    if draw < 0.20:
        return answered(pool.harm_align + pool.harm_safety, ALL_REQUESTS, rng)
    if draw < 0.28:
        return answered(pool.same_verb, REQUESTS, rng)
    if draw < 0.45:
        return answered(pool.same_object_train + pool.harmless_train, ALL_REQUESTS, rng)
    return everyday(rng)


def _alignment_example(rng: random.Random) -> Example:
    pool = actions()
    draw = rng.random()
    if draw < 0.30:
        return refused(pool.harm_align, ALL_REQUESTS, rng)
    if draw < 0.51:
        return answered(pool.same_verb, REQUESTS, rng)
    if draw < 0.79:
        return answered(pool.same_object_train, ALL_REQUESTS, rng)
    if draw < 0.93:
        return answered(pool.harmless_train, ALL_REQUESTS, rng)
    return everyday(rng)
