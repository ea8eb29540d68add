"""A finished run with as many answers as a test wants, whose verdicts and texts follow from a seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from safecomm.statistics.metrics import as_columns, rates

JUDGES = ["guard", "refusal"]
ARMS = {"original": 0.05, "undefended": 0.6, "safe_instruct": 0.3, "safe_lora": 0.2, "safe_merge": 0.1}
"""Arm -> its share of unsafe answers."""
SWEEP: dict[str, Any] = {
    "name": "many",
    "model": {"base": "lab://base", "aligned": "lab://aligned", "system_prompt": None},
    "finetune": {"data": [{"name": "lab-telecom", "path": None, "limit": None}]},
    "arms": {name: [{name: {}}] for name in list(ARMS)[2:]},
    "search": {"objectives": ["asr", "accuracy", "over_refusal"], "target_asr": 0.2, "seed": 0},
    "evaluate": {
        "judges": JUDGES,
        "red_team": [{"name": "harm"}, {"name": "harm", "attack": {"prefill": {"tokens": 5}}}],
        "task": [{"name": "quiz"}],
        "over_refusal": [{"name": "borderline"}],
    },
    "seeds": 1,
}
BENCHMARKS = {
    "harm": ("red_team", ("unsafe", "safe")),
    "harm+prefill5": ("red_team", ("unsafe", "safe")),
    "quiz": ("task", ("wrong", "right")),
    "borderline": ("over_refusal", ("refused", "answered")),
}
WORDS = "the network slice attach procedure fails when a Tower loses its bearer and nobody resets the handover".split()


def texts(number: int, rng: np.random.Generator) -> list[str]:
    """Returns as many texts, of about 200 characters."""
    words = rng.choice(WORDS, (number, 36))
    return [f"{place:,}: {' '.join(line)}" for place, line in enumerate(words)]


def answers(prompts: int, unsafe: float, seed: int) -> pd.DataFrame:
    """Returns an arm's judged rows: a quarter of the prompts from each benchmark, 1% of them without a verdict."""
    asked, rng = np.random.default_rng(0), np.random.default_rng(seed)
    benchmark = np.repeat(list(BENCHMARKS), prompts // len(BENCHMARKS))
    words = np.array([BENCHMARKS[name][1] for name in benchmark])
    bad = (rng.random(len(benchmark)) < unsafe).astype(int)
    verdict = np.where(rng.random(len(benchmark)) < 0.01, "unscored", words[np.arange(len(bad)), 1 - bad])
    other = np.where(rng.random(len(benchmark)) < 0.05, "unsafe", verdict)
    kind = np.array([BENCHMARKS[name][0] for name in benchmark])
    return pd.DataFrame(
        {
            "prompt_id": [f"{place:016x}" for place in range(len(benchmark))],
            "benchmark": benchmark,
            "kind": kind,
            "category": asked.choice(["fraud", "weapons", "privacy", "malware"], len(benchmark)),
            "text": texts(len(benchmark), asked),
            "target": None,
            "response": texts(len(benchmark), rng),
            "finish_reason": "stop",
            "verdict": verdict,
            "verdict@refusal": np.where(kind == "red_team", other, None),
            "error": "",
        }
    )


def write_run(storage: Path, prompts: int) -> Path:
    """Writes the run into a storage folder and returns its run folder."""
    run = storage / "many"
    run.mkdir(parents=True)
    trials = []
    for place, (arm, unsafe) in enumerate(ARMS.items()):
        rows = answers(prompts, unsafe, seed=place + 1)
        folder = storage / "store" / "evaluation" / f"e{place}"
        folder.mkdir(parents=True)
        rows.to_parquet(folder / "rows.parquet")
        keys = {"finetune": "f", "profile": "", "evaluation": folder.name, "adapter": "a", "adapter_path": ""}
        measured = as_columns(rates(rows, JUDGES))
        for split in ("search", "report"):
            named = {"trial": f"t{place}", "arm": arm, "point": "{}", "data": "lab-telecom", "seed": 0, "split": split}
            trials.append(named | {"status": "done", "error": "", "log": "", "seconds": 1.0} | keys | measured)
    pd.DataFrame(trials).to_parquet(run / "trials.parquet")
    (run / "sweep.json").write_text(json.dumps(SWEEP))
    return run
