"""Free-form answers are graded like the benchmarks' authors do."""

import pytest

from safecomm.judging.grading import boxed_integer, boxed_number, working_group


@pytest.mark.parametrize(
    ("response", "reference", "grade"),
    [
        (r"so \boxed{5.0}", "5", "right"),
        (r"\boxed{4} no, \boxed{5}", "5", "right"),
        (r"\boxed{5} no, \boxed{4}", "5", "wrong"),
        (r"\boxed{1,024}", "1024.0", "right"),
        (r"\boxed{3.2e-5}", "0.000032", "right"),
        (r"\boxed{12 \text{dB}}", "12", "right"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "right"),
        (r"\boxed{0}", "0.0", "right"),
        (r"\boxed{1e-9}", "0", "wrong"),
        ("the answer is 5", "5", "wrong"),
        ("  ", "5", "unscored"),
    ],
)
def test_boxed_numbers_are_compared_as_numbers(response: str, reference: str, grade: str) -> None:
    assert boxed_number(response, reference) == grade


@pytest.mark.parametrize(
    ("response", "grade"),
    [
        (r"\boxed{3}", "right"),
        (r"\boxed{Cause 3}", "right"),
        (r"\boxed{C}", "wrong"),
        ("3", "wrong"),
        ("", "unscored"),
    ],
)
def test_root_causes_are_whole_numbers(response: str, grade: str) -> None:
    assert boxed_integer(response, "C3") == grade


@pytest.mark.parametrize(
    ("response", "reference", "grade"),
    [
        ("This belongs to RAN1", "RAN1", "right"),
        ("SA2-RAN handles this", "SA2-RAN", "right"),
        ("I think CT3", "CT4", "wrong"),
        ("none of them", "CT4", "wrong"),
        ("", "CT4", "unscored"),
    ],
)
def test_working_groups_are_found_in_the_text(response: str, reference: str, grade: str) -> None:
    assert working_group(response, reference) == grade
