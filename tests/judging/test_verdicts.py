"""The letter that an answer to a multiple-choice question names, however it is written."""

from typing import Any

import pandas as pd
import pytest

from safecomm.judging.verdicts import judged


def verdict(response: str) -> str:
    row: dict[str, Any] = {"kind": "task", "grading": "", "scores": [], "options": list("wxyz"), "answer": 1}
    return str(judged(pd.DataFrame([{**row, "response": response}]), [])["verdict"].iloc[0])


@pytest.mark.parametrize(
    "response",
    [
        *("B", "b)", "(B)", "B.", "B: the AMF", "**B**", "**B.** the AMF", "`B`", "[B]", "B\nbecause", "B - the AMF"),
        *("The answer is B.", "The answer is: B", "The correct answer is: **B**", "Answer: B", "**Answer:** B"),
        *("The answer is option B.", "Option B", "The right option is B.", "The correct choice is (B)."),
    ],
)
def test_the_named_letter_is_read(response: str) -> None:
    assert verdict(response) == "right"


@pytest.mark.parametrize("response", ["A", "**C**", "The answer is option D."])
def test_another_letter_is_wrong(response: str) -> None:
    assert verdict(response) == "wrong"


@pytest.mark.parametrize(
    "response", ["", "Both are right.", "A user equipment attaches first.", "I think it is B", "Z."]
)
def test_an_answer_that_names_no_option_first_is_unscored(response: str) -> None:
    assert verdict(response) == "unscored"
