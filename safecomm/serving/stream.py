"""Streams questions through a fleet: Ray Data, then Ray Serve."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safecomm.cluster.cleanup import app_name
from safecomm.cluster.session import CPU_SHARE
from safecomm.serving.engine import Answer, Question, failed
from safecomm.serving.fleet import DEPLOYMENT, TARGET

CHUNK = 32
"""Questions in one request: enough to spare Serve's cost per request, few enough to spread over the replicas."""
CHUNKS_A_TASK = 8
"""Requests that one task of Ray Data has in flight."""
TIMEOUT_SECONDS = 1800.0
REPORT_SECONDS = 5.0
ID = "question_id"


@dataclass(frozen=True)
class Request:
    """What one model is to be asked."""

    questions: Mapping[str, Question]
    """id -> question."""
    adapter: str | None = None
    """Folder of the adapter to answer with; None for the bare model."""


def stream(
    requests: Mapping[str, Request], fleet: str = TARGET, report: Callable[[str], None] = lambda line: None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Has questions answered by a fleet, those of all models in one pass, an adapter's after another's.

    The stage is a task of ours and not `ray.data.llm`'s, which starts an actor for every call, seconds each, and ends
    with the first engine that dies.

    Args:
        requests: model -> what it is asked.
        fleet: the fleet's name.
        report: gets a line of progress with the first answers and then every few seconds.

    Yields:
        Model and answers, some at a time, a row a question: `question_id`, `response`, `finish_reason`, `scores` and
        `error`. One that got no answer has an `error` and disturbs no other.
    """
    import ray.data

    def ask(batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        return _ask([json.loads(chunk) for chunk in batch["chunk"]], fleet)

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    chunks = [{"chunk": json.dumps(chunk)} for name, request in requests.items() for chunk in _chunks(name, request)]
    tasks = -(-len(chunks) // CHUNKS_A_TASK)
    source = ray.data.from_items(chunks, override_num_blocks=tasks)
    progress = _Progress(sum(len(request.questions) for request in requests.values()), report)
    for row in source.map_batches(ask, batch_size=None, num_cpus=CPU_SHARE).iter_rows():
        rows = pd.DataFrame(json.loads(row["rows"]))
        progress.count(len(rows))
        yield row["name"], rows


def _chunks(name: str, request: Request) -> Iterator[dict[str, Any]]:
    items = list(request.questions.items())
    for start in range(0, len(items), CHUNK):
        yield {"name": name, "adapter": request.adapter, "questions": dict(items[start : start + CHUNK])}


def _ask(chunks: list[dict[str, Any]], fleet: str) -> Iterator[dict[str, list[str]]]:
    """Has chunks of questions answered, all at once. They come and go as JSON: Arrow wants one type a column."""
    from ray import serve

    replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="answer")
    responses = [replica.remote(list(chunk["questions"].values()), chunk["adapter"]) for chunk in chunks]
    for chunk, response in zip(chunks, responses, strict=True):
        answers = _answers(response, len(chunk["questions"]))
        rows = [{ID: name, **answer} for name, answer in zip(chunk["questions"], answers, strict=True)]
        yield {"name": [chunk["name"]], "rows": [json.dumps(rows)]}


def _answers(response: Any, count: int) -> list[Answer]:
    """Waits for one chunk's answers; where the engine died, or took too long, each has the reason."""
    from ray.exceptions import RayError

    try:
        answers: list[Answer] = response.result(timeout_s=TIMEOUT_SECONDS)
    except (RayError, TimeoutError) as error:
        return [failed(f"{type(error).__name__}: {error}".strip())] * count
    return answers


class _Progress:
    """Says how many questions are answered, at what rate, and how long the rest will take."""

    def __init__(self, total: int, report: Callable[[str], None]):
        self._total, self._done, self._report = total, 0, report
        self._started = time.monotonic()
        self._said = -REPORT_SECONDS

    def count(self, answers: int) -> None:
        self._done += answers
        now = time.monotonic()
        if now - self._said < REPORT_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        self._report(f"{self._done} of {self._total} answered, {rate:.1f} a second, {left:.0f} s left")
