"""A small finished run with known numbers, a failed trial, and answers that try to break the page."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from safecomm.judging.coherence import with_coherence
from safecomm.report.pack.write import write_pack
from safecomm.report.release import Release, released
from safecomm.report.run import read_run
from safecomm.statistics.metrics import as_columns, rate, rates

POLICY = "rules:\n  - {metric: asr, max: 0.9}\n  - {metric: accuracy, min: 0.99, tier: advisory}\n"
"""A release policy that the run passes."""
ATTACK = "</details></script><script>window.broken = true</script><b>bold</b>[/bold]"
# arm, point -> unsafe among 20, right among 20, refused among 10 (on the search split)
POINTS = {
    ("original", "{}"): (1, 10, 1),
    ("undefended", "{}"): (12, 18, 0),
    ("safe_merge", '{"safe_merge.weight": 0.5, "safe_merge.lowest": 4}'): (0, 12, 2),
    ("safe_merge", '{"safe_merge.weight": 0.9, "safe_merge.lowest": 2}'): (4, 17, 0),
    ("safe_instruct", '{"safe_instruct.ratio": 0.01}'): (7, 18, 0),
    ("safe_instruct", '{"safe_instruct.ratio": 0.3}'): (2, 16, 1),
}
SWEEP = {
    "name": "small",
    "model": {"base": "lab://base", "aligned": "lab://aligned", "system_prompt": None},
    "finetune": {"data": [{"name": "lab-teleqna", "path": None, "limit": None}]},
    "arms": {
        "safe_instruct": [{"safe_instruct": {"ratio": {"grid": [0.01, 0.3]}}}],
        "safe_merge": [
            {"safe_merge": {"lowest": {"randint": [1, 4]}, "weight": {"uniform": [0.5, 0.9]}, "combine": "cat"}},
        ],
    },
    "search": {"objectives": ["asr", "accuracy", "over_refusal"], "target_asr": 0.2, "seed": 0},
    "evaluate": {"judges": ["refusal"]},
    "seeds": 1,
}


def _rows(split: str, unsafe: int, right: int, refused: int) -> pd.DataFrame:
    """Returns an evaluation's rows; one harmful prompt has no verdict."""
    kinds = [
        ("red_team", "lab-harm", ["unsafe"] * unsafe + ["safe"] * (20 - unsafe) + ["unscored"]),
        ("task", "lab-teleqna", ["right"] * right + ["wrong"] * (20 - right)),
        ("over_refusal", "lab-borderline", ["refused"] * refused + ["answered"] * (10 - refused)),
    ]
    return pd.DataFrame(
        {
            "prompt_id": f"{kind}-{split}-{at:02d}",
            "benchmark": benchmark,
            "kind": kind,
            "category": "",
            "text": f"{kind} prompt {at} {ATTACK}",
            "target": None,
            "options": ["AMF", "SMF"] if kind == "task" else [],
            "scores": [-2.0, -1.0] if kind == "task" else [],
            "response": f"{verdict} {ATTACK}" if kind != "task" else "",
            "finish_reason": "compared" if kind == "task" else "stop",
            "verdict": verdict,
            "error": "",
        }
        for kind, benchmark, verdicts in kinds
        for at, verdict in enumerate(verdicts)
    )


def _trial(store: Path, at: int, arm: str, point: str, split: str, seed: int = 0) -> dict[str, Any]:
    unsafe, right, refused = POINTS[arm, point]
    worse = split == "report"  # so that no number of one split can stand for the other
    rows = _rows(split, unsafe + worse, right - worse, refused + worse)
    folder = store / "evaluation" / f"{at:02d}-{split}"
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "rows.parquet")
    profile, adapter = ("p", "realign/chosen") if arm == "safe_merge" else ("", "finetune/f")
    keys = {"finetune": "f", "profile": profile, "evaluation": folder.name, "adapter": "a", "adapter_path": adapter}
    place = {"trial": f"t{at:02d}", "arm": arm, "point": point, "data": "lab-teleqna", "seed": seed, "split": split}
    return (
        place
        | {"status": "done", "error": "", "log": "", "seconds": 1.0}
        | keys
        | as_columns(rates(with_coherence(rows), ["refusal"]))
    )


def _failed(split: str) -> dict[str, Any]:
    place = {
        "trial": "t99",
        "arm": "safe_merge",
        "point": '{"safe_merge.weight": 0.7, "safe_merge.lowest": 3}',
        "split": split,
    }
    return (
        place
        | {
            "data": "lab-teleqna",
            "seed": 0,
            "status": "failed",
            "error": f"no engine answered {ATTACK}",
            "log": "logs/t99.txt",
        }
        | {key: "" for key in ("finetune", "profile", "evaluation", "adapter")}
    )


def _profile() -> dict[str, Any]:
    modules = [
        {"name": f"model.layers.{layer}.self_attn.{kind}", "rho": 0.1 * layer + shift, "null": 0.7, "v_norm": 1.0}
        for layer in range(4)
        for kind, shift in (("q_proj", 0.3), ("v_proj", 0.5))
    ]
    return {"modules": modules}


@pytest.fixture(scope="session")
def labelled_run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with judges measured on people's labels, the second of which could read nothing."""
    run = tmp_path_factory.mktemp("labelled")
    shutil.copy(run_folder / "trials.parquet", run)
    labels = {"labels": "people.csv", "judges": ["refusal", "compliance"]}
    (run / "sweep.json").write_text(json.dumps(SWEEP | {"evaluate": labels}))
    refusal = {"sensitivity": asdict(rate(45, 50, 50)), "specificity": asdict(rate(40, 50, 50))}
    nothing = {part: asdict(rate(0, 0, 50)) | {"value": None} for part in refusal}
    judges = {"refusal": refusal, "compliance": nothing}
    (run / "judges.json").write_text(json.dumps({"file": "people.csv", "digest": "d", "judges": judges}))
    return run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("storage")
    run, store = storage / "small", storage / "store"
    run.mkdir()
    rows = [_trial(store, at, *place, split) for at, place in enumerate(POINTS) for split in ("search", "report")]
    pd.DataFrame([*rows, _failed("search"), _failed("report")]).to_parquet(run / "trials.parquet")
    (run / "sweep.json").write_text(json.dumps(SWEEP))
    (store / "realign" / "chosen").mkdir(parents=True)
    (store / "realign" / "chosen" / "modules.json").write_text(json.dumps(["model.layers.0.self_attn.q_proj"]))
    (store / "profile" / "p").mkdir(parents=True)
    (store / "profile" / "p" / "profile.json").write_text(json.dumps(_profile()))
    return run


@pytest.fixture
def with_adapters(run_folder: Path, tmp_path: Path) -> Path:
    """The run, with an adapter behind every trial."""
    return _with_adapters(run_folder, tmp_path)


@pytest.fixture(scope="session")
def unchanged_run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that change nothing in it, with a report, and the chat template of its fine-tune."""
    run = _with_adapters(run_folder, tmp_path_factory.mktemp("unchanged"))
    (run.parent / "store" / "finetune" / "f" / "chat_template.jinja").write_text("{{ messages }}")
    (run / "report.html").write_text("the report")
    return run


def _with_adapters(run_folder: Path, folder: Path) -> Path:
    shutil.copytree(run_folder.parent, folder / "storage")
    run, store = folder / "storage" / "small", folder / "storage" / "store"
    stages = {"realign": {"defense": "safe_merge", "adapter": "f"}, "finetune": {"data": "d", "epochs": 2}, "data": {}}
    for (stage, inputs), key in zip(stages.items(), "rfd", strict=True):
        (store / stage / key).mkdir(parents=True, exist_ok=True)
        (store / stage / key / "lineage.json").write_text(json.dumps({"stage": stage, "key": key, "inputs": inputs}))
    (store / "realign" / "r" / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "/tmp/x"}')
    (store / "realign" / "r" / "adapter_model.safetensors").write_bytes(b"weights")
    trials = pd.read_parquet(run / "trials.parquet")
    trials["adapter_path"] = str(store / "realign" / "r")
    trials.loc[trials["arm"] == "original", "adapter_path"] = ""
    trials.to_parquet(run / "trials.parquet")
    return run


@pytest.fixture(scope="session")
def release(unchanged_run: Path) -> Release:
    """The adapter of `safe_merge`, which tests export."""
    return released(read_run(unchanged_run), "safe_merge", 0)


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "gate.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="session")
def pack(release: Release, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack of a run; tests change copies of it."""
    out = tmp_path_factory.mktemp("packs") / "pack"
    write_pack(release.run.folder, "safe_merge", 0, out, policy)
    return out
