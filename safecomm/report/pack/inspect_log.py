"""Writes answers as logs of inspect (inspect.aisi.org.uk): an `.eval` file for each arm and benchmark.

The format is a ZIP archive of JSON files, which inspect documents by the types of `inspect_ai.log` (version 2 of the
log). It is written here without inspect, because every version of inspect_ai holds fsspec and botocore below the
versions that this package's other needs take.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pandas as pd

from safecomm.report.cells import likeliest_option, list_in, plain, text_in
from safecomm.report.pack.answers import ArmAnswers, by_benchmark
from safecomm.report.points import rate_in, rows_of
from safecomm.report.run import Run
from safecomm.statistics.labelled import LABEL
from safecomm.statistics.metric_table import ASR, METRICS, Metric
from safecomm.statistics.metrics import Rate
from safecomm.storage.store import digest, without_nan

LOG_VERSION = 2
SUFFIX = ".eval"
STOPS = {"stop": "stop", "compared": "stop", "length": "max_tokens"}
"""The engine's reason -> inspect's."""
ABOUT = ("category", "cluster", "target", "reference", "prefill", "finish_reason", "error", "scores", LABEL)
"""The columns that become a sample's metadata where they are not empty."""

Json = dict[str, Any]


@dataclass(frozen=True)
class _Log:
    """One arm's answers to one benchmark."""

    run: Run
    arm: ArmAnswers
    benchmark: str
    rows: pd.DataFrame

    @cached_property
    def metric(self) -> Metric:
        """What the benchmark measures."""
        return next(one for one in METRICS if one.kind == self.rows["kind"].iloc[0])

    @property
    def model(self) -> str:
        """The name under which inspect shows the arm."""
        return f"safecomm/{self.arm.arm}"

    @property
    def created(self) -> str:
        """When the answers were stored."""
        return self.arm.answered.isoformat(timespec="seconds")

    @property
    def key(self) -> str:
        """What identifies the answers."""
        return digest([str(self.arm.trial["evaluation"]), self.benchmark])

    @cached_property
    def scorers(self) -> dict[str, str]:
        """Scorer -> its column of verdicts: the judges of harmful answers, else the metric."""
        if self.metric is not ASR:
            return {self.metric.name: "verdict"}
        columns = {judge: f"verdict@{judge}" for judge in self.run.judge_names[1:]}
        first = next(iter(self.run.judge_names), ASR.name)
        return {first: "verdict"} | {judge: column for judge, column in columns.items() if column in self.rows}

    def rate(self, scorer: str) -> Rate:
        """Returns the rate by a scorer, as `trials.parquet` has it."""
        judge = "" if self.scorers[scorer] == "verdict" else f"@{scorer}"
        return rate_in(self.arm.trial, f"{self.metric.name}{judge}/{self.benchmark}")


def write_logs(folder: Path, run: Run, arms: list[ArmAnswers]) -> list[Path]:
    """Writes a log for each arm and benchmark into a folder; returns the files."""
    folder.mkdir()
    return [_write(folder, _Log(run, arm, name, rows)) for arm in arms for name, rows in by_benchmark(arm)]


def _write(folder: Path, log: _Log) -> Path:
    task = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{log.arm.arm}-{log.benchmark}")
    path = folder / f"{re.sub('[:+]', '-', log.created)}_{task}_{log.key}{SUFFIX}"
    samples = list(_samples(log))
    start = {"version": LOG_VERSION, "eval": _spec(log, samples), "plan": {"name": "plan", "steps": [], "config": {}}}
    stats = {"started_at": "", "completed_at": log.created, "model_usage": {}, "role_usage": {}}
    with ZipFile(path, "w") as archive:
        _add(archive, "_journal/start.json", start)
        for sample in samples:
            _add(archive, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
        _add(archive, "summaries.json", [_summary(sample) for sample in samples])
        _add(archive, "header.json", {**start, "status": "success", "results": _results(log), "stats": stats})
    return path


def _add(archive: ZipFile, name: str, value: Any) -> None:
    """Adds a JSON file without a time, so that the same answers give the same archive."""
    text = json.dumps(without_nan(value), ensure_ascii=False, default=plain)
    archive.writestr(ZipInfo(name), text, ZIP_DEFLATED)


def _spec(log: _Log, samples: list[Json]) -> Json:
    model, trial = log.run.sweep["model"], log.arm.trial
    ids = list(dict.fromkeys(sample["id"] for sample in samples))
    about = {"arm": log.arm.arm, "settings": log.arm.settings, "seed": int(trial["seed"]), "split": trial["split"]}
    return {
        "eval_id": log.key,
        "run_id": digest([str(trial["evaluation"])]),
        "created": log.created,
        "task": f"{log.arm.arm}/{log.benchmark}",
        "task_id": log.key,
        "dataset": {"name": log.benchmark, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": log.model,
        "model_args": {"aligned": model["aligned"], "adapter": trial["adapter"]},
        "config": {"epochs": max(sample["epoch"] for sample in samples)},
        "packages": {},
        "scorers": [{"name": name, "metrics": [{"name": log.metric.name}]} for name in log.scorers],
        "metadata": {"sweep": log.run.sweep["name"], **about, "written_by": "safecomm export --evidence"},
    }


def _results(log: _Log) -> Json:
    total = len(log.rows)
    return {"total_samples": total, "completed_samples": total, "scores": [_score(log, name) for name in log.scorers]}


def _score(log: _Log, scorer: str) -> Json:
    """Returns a rate with its 95% interval; without a verdict there is no rate."""
    rate = log.rate(scorer)
    values = {log.metric.name: rate.value, "low": rate.low, "high": rate.high} if rate.n else {}
    scored = int(log.rows[log.scorers[scorer]].isin([log.metric.hit, log.metric.miss]).sum())
    return {
        "name": scorer,
        "scorer": scorer,
        "scored_samples": scored,
        "unscored_samples": len(log.rows) - scored,
        "metrics": {name: {"name": name, "value": value} for name, value in values.items()},
    }


def _samples(log: _Log) -> Iterator[Json]:
    """Yields the samples; several answers to one prompt are its epochs."""
    epochs = log.rows.groupby("prompt_id").cumcount() + 1
    system = log.run.sweep["model"].get("system_prompt")
    opening = [{"role": "system", "content": system}] if system else []
    for row, epoch in zip(rows_of(log.rows), epochs, strict=True):
        options, answer = list_in(row.get("options")), _answer(row)
        message = {"role": "assistant", "content": answer, "source": "generate", "model": log.model}
        choice = {"message": message, "stop_reason": STOPS.get(str(row.get("finish_reason")), "unknown")}
        yield {
            "id": row["prompt_id"],
            "epoch": int(epoch),
            "input": row["text"],
            **({"choices": options} if options else {}),
            "target": _target(row, options),
            "messages": [*opening, {"role": "user", "content": row["text"], "source": "input"}, message],
            "output": {"model": log.model, "choices": [choice], "completion": answer},
            "scores": {name: {"value": text_in(row[column]), "answer": answer} for name, column in log.scorers.items()},
            "metadata": {name: row[name] for name in ABOUT if name in row and not _is_empty(row[name])},
        }


def _summary(sample: Json) -> Json:
    shown = ("id", "epoch", "input", "choices", "target", "scores", "metadata")
    return {name: sample[name] for name in shown if name in sample} | {"completed": True}


def _target(row: Json, options: list[str]) -> str:
    """Returns the right answer of a task question; other prompts have none."""
    place = row.get("answer")
    return text_in(row.get("reference")) if not options or pd.isna(place) else options[int(place)]


def _answer(row: Json) -> str:
    """Returns the generated text, or the option with the highest likelihood."""
    return text_in(row.get("response")) or likeliest_option(row)


def _is_empty(value: Any) -> bool:
    return len(value) == 0 if hasattr(value, "__len__") else value is None or bool(pd.isna(value))
