"""Store keys are unchanged, so that sweeps find the results of earlier versions."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from safecomm.defenses import DEFENSES, Adapter
from safecomm.defenses.adapter import Factors
from safecomm.search.arms import Point, Trial, seeded
from safecomm.search.fine_tunes import SAFE_ADAPTER, TRAIN
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep, read_sweep
from safecomm.storage.store import Store, digest
from safecomm.sweep.judges import measure_judges
from safecomm.sweep.stages import Stages

LAB = Path(__file__).parents[1] / "sweeps" / "lab.yaml"
GOLDEN = Path(__file__).with_name("golden_keys.json")
WORKERS = "cluster.finetune.workers=2"
"""As when the names were written down; how many ranks train decides a fine-tune's name."""
LAB_POINTS: dict[str, list[Point]] = {
    "original": [{}],
    "undefended": [{}],
    "safe_instruct": [{"safe_instruct.ratio": 0.01}, {"safe_instruct.ratio": 0.03}],
    "safe_lora": [{"safe_lora.lowest": 7}, {"safe_lora.lowest": 14}],
    "safe_merge": [{"safe_merge.lowest": 23, "safe_merge.weight": 0.51}],
}
EVERY_DEFENSE = [
    "seeds=2",
    "evaluate.engine=vllm",
    "arms={lora: [{finetune: {rank: 8, learning_rate: 2e-3}}, {safe_lora: {threshold: 0.5}}], "
    "subspace: [{safe_lora: {quantile: 0.5, projection: subspace, rank: 4}}], "
    "ties: [{safe_merge: {above_null: 0.1, weight: 0.7, combine: ties, density: 0.5}}], "
    "drop: [{drop: {threshold: {q_proj: 0.6, v_proj: 0.85}}}], scale: [{scale: {factor: 0.5}}], "
    "held: [{constrained_sft: {beta: 0.2}}], ahead: [{look_ahead: {words: 3}}], further: [{lox: {directions: 2}}], "
    "patched: [{safe_instruct: {ratio: 0.03}}, {one_shot: {example: 3, steps: 2}}], "
    "resta: [{resta_instruct: {alpha: 0.5, rank: 4}}], delta: [{safe_delta: {budget: 0.5}}], "
    "stacked: [{safe_instruct: {ratio: 0.03}}, {safe_lora: {lowest: 8}}, {scale: {factor: 0.9}}]}",
    "evaluate.judges=[{name: own, model: lab://guard}, {name: far, model: far, url: http://far/v1}, compliance]",
    "evaluate.grader={model: lab://grader}",
    "evaluate.sampling=safecomm",
    "evaluate.samples=2",
    "model.system_prompt=Be brief.",
    "finetune.packing=true",
]


class FixedResults(Store):
    """A store in which every stage that takes a model gives the same small adapter; it notes the stages' keys."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.keys: set[str] = set()

    def obtain(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        self.keys.add(f"{stage}/{digest(inputs)}")
        return super().obtain(stage, inputs, make if stage in ("data", "judges") else write_adapter)


def write_adapter(folder: Path) -> None:
    factors = Factors(torch.ones(2, 4), torch.ones(4, 2), 0.5)
    Adapter({"model.layers.0.self_attn.q_proj": factors}, {"peft_type": "LORA"}, "fixed").save(folder)


def model(name: str) -> ModelFolder:
    return ModelFolder(Path(name), f"identity of {name}")


def stages_of(sweep: Sweep, storage: Path) -> tuple[Stages, FixedResults]:
    store = FixedResults(storage / "store")
    judges = {name: model(reference) for name, reference in sweep.evaluate.judge_models.items()}
    return Stages(sweep, model("base"), model("aligned"), store, on_gpu=False, judge_models=judges), store


def names_of(trial: Trial, sweep: Sweep, storage: Path) -> list[str]:
    """Returns a trial's record, what the record holds for and the stages that carry the trial out."""
    stages, store = stages_of(sweep, storage)
    folder = RunFolder(sweep)
    adapter = None if trial.arm == "original" else stages.adapter(trial.chain, trial.seed).adapter
    stages.evaluated(adapter, trial.split, share=0.1)
    stages.evaluated(adapter, trial.split)
    context = folder.keep(TrialRecord.of(trial, "done")).context
    return [folder.record_path(trial).name, f"context/{context}", *sorted(store.keys)]


def fine_tune_names(sweep: Sweep, storage: Path) -> list[str]:
    """Returns the records and stages of the fine-tunes that arms share, and the index of their profiles."""
    stages, store = stages_of(sweep, storage)
    trials = [Trial("finetune", {"ratio": 0.03}, (("safe_instruct", {"ratio": 0.03}),), 0, TRAIN)]
    trials += [Trial(SAFE_ADAPTER, {}, (), 1, TRAIN)]
    stages.training.finetuned(trials[0].chain, 0)
    stages.training.safe_adapter(1)
    ProfileCache(sweep).keep({"ratio": 0.03}, 0, [])
    profiles = [f"profiles/{path.name}" for path in (storage / "store" / "profiles").iterdir()]
    return [*(RunFolder(sweep).record_path(trial).name for trial in trials), *sorted(store.keys), *profiles]


def lab_names(storage: Path) -> dict[str, list[str]]:
    sweep = read_sweep(LAB, [f"storage={storage}", "evaluate.engine=vllm", WORKERS])
    trials = [
        trial
        for arm, points in LAB_POINTS.items()
        for point in points
        for split in ("search", "report")
        for trial in seeded(sweep, arm, point, split)
    ]
    names = {f"{trial.title}, {trial.split}": names_of(trial, sweep, storage) for trial in trials}
    return {"fine-tunes": fine_tune_names(sweep, storage), **names}


def every_defense_names(storage: Path) -> dict[str, list[str]]:
    sweep = read_sweep(LAB, [f"storage={storage}", WORKERS, *EVERY_DEFENSE])
    used = {step.name for chain in sweep.arms.values() for step in chain}
    assert used >= {*DEFENSES}, "the sweep of this test is to have every defense"
    trials = [trial for arm in sweep.arms for trial in seeded(sweep, arm, {})]
    return {trial.title: names_of(trial, sweep, storage) for trial in trials}


def other_names(storage: Path) -> dict[str, list[str]]:
    """Returns the stages of an adapter that was given, and of judges that are measured on labelled answers."""
    write_adapter(storage / "given")
    labels = storage / "labels.csv"
    labels.write_text("prompt,response,unsafe\nJam it?,Sure,yes\nJam it?,I can't help,0\n")
    given = [
        f"storage={storage}",
        f"evaluate.labels={labels}",
        "finetune.data=[]",
        "arms={scale: [{scale: {factor: 0.5}}]}",
    ]
    sweep = read_sweep(LAB, [*given, f"finetune.adapter={storage / 'given'}"])
    stages, store = stages_of(sweep, storage)
    stages.training.finetuned((), 0)
    measure_judges(stages, storage)
    return {"given adapter and labels": sorted(store.keys)}


@pytest.mark.parametrize("names", [lab_names, every_defense_names, other_names])
def test_stage_and_record_keys_are_unchanged(names: Callable[[Path], dict[str, list[str]]], tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert names(tmp_path) == golden[names.__name__]
