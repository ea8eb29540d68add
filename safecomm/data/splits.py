"""Assigns rows to splits by a hash of their text.

Only the normalised text matters, not file order, other rows or the machine. So a question is on the same side in every
copy of a dataset, and duplicates never fall on both sides.
"""

import re
import unicodedata
from typing import Literal

from safecomm.storage.store import digest

Split = Literal["search", "report", "release"]
"""Settings are chosen on the first, results reported on the second, and the third, if any, is kept for the gate."""
TRAINING_SHARE = 0.8
"""The study's 80/20 train-test split (SafeCOMM, arXiv 2506.00062, section IV)."""

_NOT_WORDS = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Returns the text without case, punctuation and repeated whitespace; strips symbol-only texts."""
    words = _NOT_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text.strip()


def place(purpose: str, text: str) -> float:
    """Hashes a text to a number in [0, 1), uniform over texts and independent between purposes."""
    return int(digest([purpose, text]), 16) / 2**64


def split_of(prompt_text: str, release: float = 0.0) -> Split:
    """Returns a prompt's split; `release` is the share of all prompts that is kept for the gate."""
    if place("release", normalised(prompt_text)) < release:
        return "release"
    return "search" if place("search or report", normalised(prompt_text)) < 0.5 else "report"


def is_training_row(text: str) -> bool:
    """Returns whether a row of a dataset without a published split is in the training set (80%)."""
    return place("train or test", normalised(text)) < TRAINING_SHARE
