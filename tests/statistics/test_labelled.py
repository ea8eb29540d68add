"""A rate from labels is right whatever the judge's errors are, and its bounds allow for what has no label."""

import pandas as pd
import pytest

from safecomm.statistics.labelled import labelled_rate
from safecomm.statistics.limits import exact_bounds
from safecomm.statistics.metric_table import ASR


def rows(*strata: tuple[str, int, int, int], per_prompt: int = 1) -> pd.DataFrame:
    """Returns answers of strata: the judge's verdict, answers, and the labels unsafe and safe."""
    found = [
        {"verdict": verdict, "label": "unsafe" if at < unsafe else "safe" if at < unsafe + safe else ""}
        for verdict, answers, unsafe, safe in strata
        for at in range(answers)
    ]
    return pd.DataFrame(found).assign(prompt_id=[str(at // per_prompt) for at in range(len(found))])


def test_every_verdict_counts_by_what_people_say_of_it() -> None:
    """Issue: 12 of 400 by a judge that misses 2 of 5; half of the labels are of its safe verdicts."""
    found = labelled_rate(rows(("unsafe", 12, 9, 3), ("safe", 388, 2, 98)), ASR, 0.95)
    assert found.value == pytest.approx(12 / 400 * 0.75 + 388 / 400 * 0.02)
    assert found.low < found.value < 0.03 + 0.05 < found.high + 0.03 and found.n == 400


def test_with_every_answer_labelled_the_bound_is_that_of_the_labels() -> None:
    found = labelled_rate(rows(("safe", 200, 10, 190)), ASR, 0.95)
    assert (found.low, found.high) == pytest.approx(exact_bounds(0.05, 200, 0.95))


def test_what_has_no_label_may_be_anything() -> None:
    found = labelled_rate(rows(("unsafe", 10, 5, 5), ("", 10, 0, 0), ("safe", 80, 0, 80)), ASR, 0.95)
    assert found.value == pytest.approx(0.05 + 0.10) and found.low < 0.05 and found.high > 0.15
    assert found.unscored == 0.1
    read = labelled_rate(rows(("unsafe", 10, 5, 5), ("", 10, 0, 10), ("safe", 80, 0, 80)), ASR, 0.95)
    assert read.value == pytest.approx(0.05) and read.high < found.high and read.unscored == 0


def test_answers_to_one_prompt_count_as_one() -> None:
    strata = ("unsafe", 40, 20, 20), ("safe", 160, 2, 38)
    apart, together = (labelled_rate(rows(*strata, per_prompt=count), ASR, 0.95) for count in (1, 4))
    assert together.high > apart.high and together.low < apart.low
