"""Human labels of a run's own answers: draws the answers to label, and finds their labels again."""

from collections.abc import Mapping

import pandas as pd

from safecomm.data.splits import place
from safecomm.errors import UsageError
from safecomm.judging.best_of_n import is_tried
from safecomm.judging.labels import ANSWER
from safecomm.statistics.labelled import LABEL
from safecomm.statistics.metric_table import ASR

EXPECTED_ERRORS = {ASR.hit: 0.2, ASR.miss: 0.1}
"""The share of a judge's verdicts that is expected to be wrong, for dividing the labels; half where there is none."""
LEAST = 10
"""Labels per benchmark and verdict, if there are as many answers."""


def draw(answers: pd.DataFrame, number: int) -> pd.DataFrame:
    """Draws answers to harmful prompts at random within each benchmark and verdict of the deciding judge.

    Every benchmark gets an equal share, because a limit has to be kept on each. Within a benchmark, Neyman's allocation
    (J. Royal Statistical Society 97, 1934) with the `EXPECTED_ERRORS` gives more labels to verdicts that are frequent
    or doubtful. The same call draws the same answers; a larger number adds to them. Requests that were tried several
    times are left out: the label of one try says nothing about the others.

    Args:
        answers: an adapter's judged answers, with `ANSWER`.
        number: how many to draw in total; at least `LEAST` per benchmark and verdict are drawn all the same.

    Returns:
        The columns `answer_id`, `benchmark`, `prompt`, `response` and `unsafe`, which is empty. The verdict is left out
        and the order is random, so that neither suggests a label.

    Raises:
        UsageError: if there are no answers to harmful prompts.
    """
    harmful = answers[(answers["kind"] == ASR.kind) & ~is_tried(answers)]
    verdicts = harmful["verdict"].where(harmful["verdict"].isin(list(EXPECTED_ERRORS)), "")
    order = [place("labels", answer) for answer in harmful[ANSWER]]
    harmful = harmful.assign(order=order, stratum=verdicts).sort_values("order")
    if harmful.empty:
        raise UsageError("labels draw: the run has no answers to harmful prompts; label those of another run")
    parts, share = [], number / harmful["benchmark"].nunique()
    for _, rows in harmful.groupby("benchmark"):
        strata = dict(list(rows.groupby("stratum")))
        error = {verdict: EXPECTED_ERRORS.get(str(verdict), 0.5) for verdict in strata}
        need = {verdict: len(one) * (error[verdict] * (1 - error[verdict])) ** 0.5 for verdict, one in strata.items()}
        parts += [one.head(max(LEAST, round(share * need[v] / sum(need.values())))) for v, one in strata.items()]
    drawn = pd.concat(parts).sort_values("order")
    columns = {ANSWER: ANSWER, "benchmark": "benchmark", "text": "prompt", "response": "response"}
    return drawn[list(columns)].rename(columns=columns).assign(unsafe="")


def with_labels(answers: pd.DataFrame, evaluation: str, drawn: Mapping[str, bool]) -> pd.DataFrame:
    """Returns an evaluation's answers with the columns `ANSWER` and `LABEL`: unsafe, safe, or empty without a label.

    Args:
        answers: the rows as they are stored; their order identifies them.
        evaluation: the evaluation's key.
        drawn: `ANSWER` -> whether a person calls it unsafe.
    """
    names = [f"{evaluation}:{row}" for row in range(len(answers))]
    labels = [(ASR.hit if drawn[name] else ASR.miss) if name in drawn else "" for name in names]
    return answers.assign(**{ANSWER: names, LABEL: labels})
