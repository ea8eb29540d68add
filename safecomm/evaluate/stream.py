"""Streams questions through a fleet: Ray Data, then Ray Serve."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from safecomm.evaluate.engine import Answer, Question, failed
from safecomm.evaluate.fleet import DEPLOYMENT, TARGET, app_of

CHUNK = 32
"""Questions in one request: enough to spare Serve's cost per request, few enough to spread over the replicas."""
TIMEOUT_SECONDS = 1800.0
ID = "question_id"


def stream(questions: Mapping[str, Question], adapter: str | None = None, fleet: str = TARGET) -> pd.DataFrame:
    """Has questions answered by a fleet.

    Args:
        questions: id -> question.
        adapter: folder of the adapter to answer with; None for the bare model.
        fleet: the fleet's name.

    Returns:
        A row a question: `question_id`, `response`, `finish_reason`, `scores` and `error`. One that got no answer has
        an `error` and disturbs no other.
    """
    import ray.data
    from ray.data.llm import ServeDeploymentProcessorConfig, build_processor

    def request(chunk: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"adapter": adapter, "questions": json.loads(chunk["questions"])})
        return {"method": "answer", "dtype": None, "request_kwargs": {"body": body}, "ids": chunk["ids"]}

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # An engine that dies under a request fails the requests around it too; those that others answered are kept.
    context.max_errored_blocks = -1
    ask = build_processor(
        ServeDeploymentProcessorConfig(
            deployment_name=DEPLOYMENT,
            app_name=app_of(fleet),
            batch_size=4,
            concurrency=1,
            should_continue_on_error=True,
            request_timeout_s=TIMEOUT_SECONDS,
        ),
        preprocess=request,
    )
    chunks = ray.data.from_items(_chunks(questions))
    rows = ask(chunks).flat_map(_rows).take_all()
    lost = questions.keys() - {row[ID] for row in rows}
    return pd.DataFrame([*rows, *({ID: name, **failed("the engine died before it answered")} for name in lost)])


def _chunks(questions: Mapping[str, Question]) -> list[dict[str, str]]:
    """Returns the questions in chunks, as JSON: Arrow would need one type for columns that are empty in some chunks."""
    items = list(questions.items())
    parts = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    return [
        {"ids": json.dumps([name for name, _ in part]), "questions": json.dumps([question for _, question in part])}
        for part in parts
    ]


def _rows(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row a question; where the whole chunk failed, each with the reason."""
    ids = json.loads(chunk["ids"])
    error = chunk.get("__inference_error__")
    answers: list[Answer] = [failed(error)] * len(ids) if error else json.loads(chunk["answers"])
    return [{ID: name, **answer} for name, answer in zip(ids, answers, strict=True)]
