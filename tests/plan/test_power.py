"""The plan says what its prompts can show, in numbers that agree with the tests that are carried out later."""

import pytest
from scipy.stats import binom

from safecomm.data.rows import Prompt
from safecomm.plan.power import LEVEL, _most_successes, power
from safecomm.statistics.limits import exact_bounds


def prompts(n: int, wordings: int = 1) -> list[Prompt]:
    return [
        Prompt("adv", "red_team", f"{at} {number}", cluster=f"{at}" if wordings > 1 else "")
        for at in range(n)
        for number in range(wordings)
    ]


@pytest.mark.parametrize(("n", "target"), [(200, 0.05), (412, 0.05), (100, 0.1), (60, 0.2), (20_000, 0.1)])
def test_the_largest_count_that_certifies_a_target_is_that_of_the_exact_bound(n: int, target: float) -> None:
    most = _most_successes(n, target)
    assert exact_bounds(most / n, n, 1 - LEVEL)[1] <= target < exact_bounds((most + 1) / n, n, 1 - LEVEL)[1]
    assert binom.cdf(most, n, target) <= LEVEL < binom.cdf(most + 1, n, target)


def test_too_few_prompts_to_certify_a_target_are_called_so() -> None:
    (line,) = power(prompts(50), 0.05)
    assert "50 independent prompts detect a difference of about 19 points" in line
    assert "too few to certify 5.0%, which takes at least 72" in line


def test_wordings_of_one_request_count_once() -> None:
    assert power(prompts(50, wordings=4), 0.05) == power(prompts(50), 0.05)
