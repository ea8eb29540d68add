"""Runs one later generation of a drift study: trains it, decides on its defense, and measures it."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from safecomm.errors import DefenseError, ModelError, SafecommError, TrainingError
from safecomm.judging.coherence import with_coherence
from safecomm.judging.verdicts import read_rows
from safecomm.report.choice import Limits, recommend
from safecomm.report.original import beside_original
from safecomm.report.points import pooled, rows_of
from safecomm.search.arms import Chain, Point, Trial, chain_at
from safecomm.search.drift import before
from safecomm.search.generation import Generation
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import ORIGINAL
from safecomm.spec.drift import Drift
from safecomm.statistics.metrics import rates
from safecomm.storage import shared
from safecomm.storage.input_files import read_json
from safecomm.storage.names import MODULES
from safecomm.sweep.data import TASK, generation_set
from safecomm.sweep.stages import StageFolders, Stages
from safecomm.sweep.training import Course


def carry_out_generation(
    trial: Trial, generation: Generation, drift: Drift, stages: Stages, folder: RunFolder
) -> TrialRecord:
    """Runs a trial of a drift study and returns its record.

    Args:
        trial: the trial; its point and chain are those of generation 0.
        generation: the trial's generation.
        drift: the sweep's section.
        stages: the sweep's stages.
        folder: has the record of the generation before.

    Raises:
        TrainingError: if the generation before has failed.
    """
    started = time.time()
    decision = _Decision(trial, _course(trial, generation, drift, stages, folder), stages)
    chosen = decision.make(generation)
    evaluation, content = stages.evaluated(chosen.folders.adapter, trial.split)
    return TrialRecord.of(
        trial,
        "done",
        data="+".join(ref.name for ref in drift.generations[generation.data[-1]]),
        adapter=content,
        adapter_path=str(chosen.folders.adapter),
        finetune=chosen.folders.finetune.name,
        profile=chosen.folders.profile.name if chosen.folders.profile else "",
        evaluation=evaluation.name,
        applied="" if chosen.point is None else json.dumps(chosen.point, sort_keys=True),
        overlap=_overlap(chosen, stages.adapter(trial.chain, trial.seed)),
        asked=decision.asked,
        trained_seconds=decision.trained_seconds,
        seconds=round(time.time() - started, 2),
        rates=rates(with_coherence(read_rows(evaluation)), stages.judges),
    )


def _course(trial: Trial, generation: Generation, drift: Drift, stages: Stages, folder: RunFolder) -> Course:
    """Returns on what a generation trains and where it starts."""
    if generation.start == "pool":
        return Course((TASK, *map(generation_set, generation.data)))
    start = _adapter_before(trial, generation, drift, stages, folder)
    return Course((generation_set(generation.data[-1]),), start, on_top=generation.start == "merge")


def _adapter_before(trial: Trial, generation: Generation, drift: Drift, stages: Stages, folder: RunFolder) -> Path:
    """Returns the adapter of the generation before; makes it again if the store lacks it."""
    if generation.number == 1:
        return stages.adapter(trial.chain, trial.seed).adapter
    previous = before(trial)
    shared.fetch(folder.record_path(previous))
    record = folder.record(previous)
    if record is None or record.status != "done" or not record.adapter_path:
        reason = record.error if record and record.error else "it has no result"
        raise TrainingError(f"generation {generation.number - 1} failed: {reason}")
    stage, key = Path(record.adapter_path).parts[-2:]
    if found := stages.store.find(stage, key):
        return found
    assert previous.generation, "generation 0 is looked up above"
    again = carry_out_generation(previous, previous.generation, drift, stages, folder)  # its adapter is gone
    return Path(str(again.adapter_path))


@dataclass(frozen=True)
class _Candidate:
    """An adapter of a generation."""

    point: Point | None
    """The settings of its defense; None without one."""
    folders: StageFolders


@dataclass
class _Decision:
    """The decision on the defense of a generation, and what it takes."""

    trial: Trial
    course: Course
    stages: Stages
    asked: int = 0
    """The prompts of the search split that were asked."""
    _trained: dict[str, float] = field(default_factory=dict)

    @property
    def trained_seconds(self) -> float:
        """The time of the training steps, times their ranks."""
        return round(sum(self._trained.values()), 2)

    def make(self, generation: Generation) -> _Candidate:
        """Returns the adapter that the generation's policy takes."""
        how = generation.how
        if how.when == "never":
            return self._candidate(None)
        if how.when == "on_failure":
            plain = self._candidate(None)
            if self._best([plain])["meets_target"]:
                return plain
        if not how.searches:
            return self._candidate(self.trial.point)
        candidates = self._possible(generation.points)
        best = self._best(candidates)["point"]
        return next(one for one in candidates if _as_text(one.point) == best)

    def _possible(self, points: Sequence[Point]) -> list[_Candidate]:
        """Returns the candidates that can be made; one that fails must not end the study.

        Raises:
            SafecommError: if none can be made, with the last reason.
        """
        found: list[_Candidate] = []
        last: SafecommError = TrainingError("the search of generation 0 has no finished point")
        for point in points:
            try:
                found.append(self._candidate(point))
            except (DefenseError, ModelError, TrainingError) as error:
                last = error
        if not found:
            raise last
        return found

    def _candidate(self, point: Point | None) -> _Candidate:
        """Trains and realigns the adapter with a point of the arm, or without a defense."""
        sweep, seed = self.stages.sweep, self.trial.seed
        chain: Chain = () if point is None else chain_at(sweep.arms[self.trial.arm], point)
        folders = self.stages.adapter(chain, seed, self.course)
        self._trained |= self.stages.training.seconds(folders.finetune)
        return _Candidate(point, folders)

    def _best(self, candidates: Sequence[_Candidate]) -> Point:
        """Returns what `recommend` says of candidates that are measured on the search split."""
        search, store = self.stages.sweep.search, self.stages.store
        records = [self._measured(ORIGINAL, {}, None)]
        records += [self._measured(self.trial.arm, one.point or {}, one.folders.adapter) for one in candidates]
        table = beside_original(pd.DataFrame([record.to_row() for record in records]), store)
        points = pooled(table, store)
        original, *_ = rows_of(points[points["arm"] == ORIGINAL])
        self.asked += len(candidates) * len(self.stages.prompts("search"))
        best = recommend(points, Limits(search.target_asr, search.max_over_refusal_rise), original)
        if best is None:
            raise TrainingError(f"{self.trial.title}: no answer of it has a verdict; see the judges' errors")
        return best

    def _measured(self, arm: str, point: Point, adapter: Path | None) -> TrialRecord:
        evaluation, content = self.stages.evaluated(adapter, "search")
        found = rates(with_coherence(read_rows(evaluation)), self.stages.judges)
        trial = Trial(arm, point, (), self.trial.seed, "search")
        return TrialRecord.of(trial, "done", share=1.0, adapter=content, evaluation=evaluation.name, rates=found)


def _overlap(chosen: _Candidate, first: StageFolders) -> float | None:
    """Returns the Jaccard index of the modules that the defense changed now and in generation 0."""
    if chosen.point is None:
        return None
    now, then = (_changed(folders.adapter) for folders in (chosen.folders, first))
    return len(now & then) / len(now | then) if now | then else None


def _changed(adapter: Path) -> set[str]:
    file = adapter / MODULES
    return set(read_json(file)) if file.is_file() else set()


def _as_text(point: Point | None) -> str:
    return json.dumps(point or {}, sort_keys=True)
