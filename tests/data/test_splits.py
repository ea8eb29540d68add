"""The splits keep repeated texts together, have the promised sizes and are independent of each other."""

from hypothesis import given, settings
from hypothesis import strategies as st

from safecomm.data.splits import is_training_row, normalised, split_of

TEXTS = [f"What does information element {number} carry?" for number in range(4000)]


def test_halves_are_about_equal():
    share = sum(split_of(text) == "search" for text in TEXTS) / len(TEXTS)
    assert 0.46 < share < 0.54


def test_four_fifths_are_training_data():
    share = sum(map(is_training_row, TEXTS)) / len(TEXTS)
    assert 0.77 < share < 0.83


def test_the_two_splits_are_independent():
    """Otherwise the test side of a trained-on set would lie in one half of the benchmark."""
    tested = [text for text in TEXTS if not is_training_row(text)]
    share = sum(split_of(text) == "search" for text in tested) / len(tested)
    assert 0.43 < share < 0.57


def test_sides_never_change():
    """A published number is only comparable while its prompts stay on their side."""
    assert " ".join(split_of(text) for text in TEXTS[:8]) == "report search report report report report report search"
    assert [is_training_row(text) for text in TEXTS[:8]] == [True, True, True, True, True, True, True, True]


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text("abcdefgh", min_size=1), min_size=1), st.sampled_from([" ", "  ", "\n", ", ", " - "]))
def test_case_spaces_and_punctuation_do_not_matter(words: list[str], between: str):
    plain, dressed = " ".join(words), f" {between.join(words).upper()}?!"
    assert normalised(plain) == normalised(dressed)
    assert split_of(plain) == split_of(dressed)
    assert is_training_row(plain) == is_training_row(dressed)


def test_symbol_only_texts_are_distinguished():
    assert normalised("+ ?") != normalised("- !")
