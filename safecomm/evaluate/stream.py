"""Streams a suite's prompts through the fleet and labels the answers: Ray Data, then Ray Serve, then a judge stage."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.evaluate.engine import Answer, Question, failed
from safecomm.evaluate.fleet import APP, DEPLOYMENT
from safecomm.evaluate.judges import JUDGES, is_refusal

CHUNK = 32
"""Prompts in one request: enough to spare Serve's cost per request, few enough to spread over the replicas."""
TIMEOUT_SECONDS = 1800.0
ROWS = "rows.parquet"
_PROMPT_COLUMNS = ["prompt_id", "benchmark", "kind", "category", "text", "target", "options", "answer"]


@dataclass(frozen=True)
class Evaluation:
    """One model's pass over a suite."""

    prompts: tuple[Prompt, ...]
    adapter: str | None
    """Folder of the adapter; None for the bare model."""
    judges: tuple[str, ...]
    system_prompt: str | None

    def write(self, out: Path) -> None:
        """Answers and labels every prompt into `rows.parquet`, one row a prompt."""
        answered = pd.DataFrame(self._stream().take_all()).sort_values("prompt_id", ignore_index=True)
        answered.to_parquet(out / ROWS)

    def _stream(self) -> Any:
        import ray.data
        from ray.data.llm import ServeDeploymentProcessorConfig, build_processor

        ray.data.DataContext.get_current().enable_progress_bars = False
        ask = build_processor(
            ServeDeploymentProcessorConfig(
                deployment_name=DEPLOYMENT,
                app_name=APP,
                batch_size=4,
                concurrency=1,
                should_continue_on_error=True,
                request_timeout_s=TIMEOUT_SECONDS,
            ),
            preprocess=self._request,
        )
        chunks = ray.data.from_items(_chunks(self.prompts))
        return ask(chunks).flat_map(_rows).map(self._label)

    def _request(self, chunk: dict[str, Any]) -> dict[str, Any]:
        questions = [self._question(prompt) for prompt in json.loads(chunk["prompts"])]
        body = json.dumps({"adapter": self.adapter, "questions": questions})
        return {"method": "answer", "dtype": None, "request_kwargs": {"body": body}, "prompts": chunk["prompts"]}

    def _question(self, prompt: dict[str, Any]) -> Question:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return Question(
            messages=[*system, {"role": "user", "content": prompt["text"]}], options=list(prompt["options"])
        )

    def _label(self, row: dict[str, Any]) -> dict[str, Any]:
        """Adds the verdict: the first judge's as `verdict`, further judges' as `verdict@NAME`."""
        if row["kind"] == "telecom":
            return row | {"verdict": _choice(row["scores"], row["answer"])}
        if row["kind"] == "over_refusal":
            return row | {"verdict": _reaction(row["response"])}
        first, *others = (JUDGES[judge](row["response"], row["target"]) for judge in self.judges)
        further = dict(zip((f"verdict@{judge}" for judge in self.judges[1:]), others, strict=True))
        return row | {"verdict": first} | further


def _chunks(prompts: Iterable[Prompt]) -> list[dict[str, str]]:
    """Returns the prompts in chunks, as JSON: Arrow would need one type for columns that are empty in some chunks."""
    rows = [prompt.as_row() for prompt in prompts]
    return [{"prompts": json.dumps(rows[start : start + CHUNK])} for start in range(0, len(rows), CHUNK)]


def _rows(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a row a prompt; where the whole chunk failed, each with the reason."""
    prompts = json.loads(chunk["prompts"])
    error = chunk.get("__inference_error__")
    answers: list[Answer] = [failed(error)] * len(prompts) if error else json.loads(chunk["answers"])
    return [
        {column: prompt[column] for column in _PROMPT_COLUMNS} | dict(answer)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _choice(scores: Iterable[float], right: int) -> str:
    ranked = list(scores)
    if not ranked:
        return "unscored"
    return "right" if max(range(len(ranked)), key=ranked.__getitem__) == right else "wrong"


def _reaction(response: str) -> str:
    if not response.strip():
        return "unscored"
    return "refused" if is_refusal(response) else "answered"
