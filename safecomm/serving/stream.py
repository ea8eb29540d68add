"""Streams questions through a fleet, with Ray Data and Ray Serve."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safecomm.cluster.cleanup import app_name
from safecomm.cluster.session import CPU_SHARE
from safecomm.serving.engine import Answer, Question, failed
from safecomm.serving.fleet import CHUNK, DEPLOYMENT, TARGET, fleet_capacity

CHUNKS_A_TASK = 8
"""Concurrent requests per Ray Data task."""
TIMEOUT_SECONDS = 7200.0
"""For a hung engine; a dead one is reported at once. A request also waits for those of other trials: with eight trials
on a 70B model, for more than an hour."""
REPORT_SECONDS = 5.0
ID = "question_id"
Count = Callable[[int, int, int], None]
"""Receives how many questions are answered, how many are asked, and the tokens of the answers."""


def uncounted(answered: int, asked: int, tokens: int) -> None:
    """Counts nothing."""


@dataclass(frozen=True)
class Request:
    """The questions for one model."""

    questions: Mapping[str, Question]
    """id -> question."""
    adapter: str | None = None
    """Folder of the adapter; None to use none."""


def stream(
    requests: Mapping[str, Request],
    fleet: str = TARGET,
    report: Callable[[str], None] = lambda line: None,
    count: Count = uncounted,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Answers the questions of all models on a fleet, in one pass, ordered by adapter.

    This uses a plain Ray Data task instead of `ray.data.llm`, which starts an actor per call (seconds each) and fails
    as soon as one engine dies.

    Args:
        requests: model -> its questions.
        fleet: the fleet's name.
        report: receives a progress message with the first answers and then every few seconds.
        count: is called as often.

    Yields:
        Model and a table of answers with one row per question: `question_id`, `response`, `finish_reason`, `scores`
        and `error`. A question that fails has an `error` and does not affect the others.
    """
    import ray.data

    from safecomm.cluster.ray_internals import poll_ray_data_less_often

    def ask(batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        return _ask([json.loads(chunk) for chunk in batch["chunk"]], fleet)

    poll_ray_data_less_often()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    chunks = [{"chunk": json.dumps(chunk)} for name, request in requests.items() for chunk in _chunks(name, request)]
    tasks = max(1, math.ceil(len(chunks) / CHUNKS_A_TASK))
    # More tasks at once would wait at Serve until they time out.
    at_once = ray.data.TaskPoolStrategy(size=min(tasks, math.ceil(fleet_capacity(fleet) / CHUNKS_A_TASK)))
    source = ray.data.from_items(chunks, override_num_blocks=tasks)
    progress = _Progress(sum(len(request.questions) for request in requests.values()), report, count)
    for row in source.map_batches(ask, batch_size=None, num_cpus=CPU_SHARE, compute=at_once).iter_rows():
        rows = pd.DataFrame(json.loads(row["rows"]))
        progress.count(len(rows), row["tokens"])
        yield row["name"], rows


def _chunks(name: str, request: Request) -> Iterator[dict[str, Any]]:
    items = list(request.questions.items())
    for start in range(0, len(items), CHUNK):
        yield {"name": name, "adapter": request.adapter, "questions": dict(items[start : start + CHUNK])}


def _ask(chunks: list[dict[str, Any]], fleet: str) -> Iterator[dict[str, list[Any]]]:
    """Answers chunks of questions concurrently. Rows are JSON because Arrow needs one type per column."""
    from ray import serve

    replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="answer")
    responses = [replica.remote(list(chunk["questions"].values()), chunk["adapter"]) for chunk in chunks]
    for chunk, response in zip(chunks, responses, strict=True):
        answers = _answers(response, len(chunk["questions"]))
        tokens = sum(answer.pop("tokens", 0) for answer in answers)
        rows = [{ID: name, **answer} for name, answer in zip(chunk["questions"], answers, strict=True)]
        yield {"name": [chunk["name"]], "rows": [json.dumps(rows)], "tokens": [tokens]}


def _answers(response: Any, count: int) -> list[Answer]:
    """Waits for one chunk's answers; if the engine dies or times out, each answer has the error.

    Serve does not cancel what times out, and the same questions are asked again.
    """
    from ray.exceptions import RayError

    try:
        answers: list[Answer] = response.result(timeout_s=TIMEOUT_SECONDS)
    except (RayError, TimeoutError) as error:
        response.cancel()
        return [failed(f"{type(error).__name__}: {error}".strip())] * count
    return answers


class _Progress:
    """Reports the number of answers, the rate and the remaining time."""

    def __init__(self, total: int, report: Callable[[str], None], count: Count):
        self._total, self._report, self._count = total, report, count
        self._done, self._tokens = 0, 0
        self._started = time.monotonic()
        self._said = -REPORT_SECONDS

    def count(self, answers: int, tokens: int) -> None:
        self._done += answers
        self._tokens += tokens
        now = time.monotonic()
        if now - self._said < REPORT_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        self._count(self._done, self._total, self._tokens)
        self._report(f"{self._done} of {self._total} answered, {rate:.1f} a second, {left:.0f} s left")
