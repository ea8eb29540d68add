"""Which side of a split a row belongs to, decided by its text alone.

Nothing but the normalised text counts: not the order of a file, not its neighbours, not the machine. So the same
question is on the same side in every copy of a dataset, and a repeated one never on both.
"""

import re
import unicodedata
from typing import Literal

from safecomm.storage.store import digest

Split = Literal["search", "report"]
TRAINING_SHARE = 0.8
"""The study's 80/20 train-test split (SafeCOMM, arXiv 2506.00062, section IV)."""

_NOT_WORDS = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Returns the text without case, punctuation and runs of blanks; a text of symbols alone stays as it is."""
    words = _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text.strip()


def place(purpose: str, text: str) -> float:
    """Returns a text's fixed number in [0, 1), evenly spread over texts and independent between purposes."""
    return int(digest([purpose, text]), 16) / 2**64


def split_of(prompt_text: str) -> Split:
    """Returns a prompt's half of its benchmark: settings are chosen on one, numbers published on the other."""
    return "search" if place("search or report", normalised(prompt_text)) < 0.5 else "report"


def is_training_row(text: str) -> bool:
    """Tells whether a row of a set without a published split is for training (80%) rather than for the test."""
    return place("train or test", normalised(text)) < TRAINING_SHARE
