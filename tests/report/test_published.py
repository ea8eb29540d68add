"""Published results are shown next to a sweep's own only if it repeats the study."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from safecomm.report.page import write_report
from safecomm.report.run import beside_published, read_run
from safecomm.report.table import results_table
from safecomm.spec.published import departures, find_published

MODEL = "meta-llama/Llama-2-7b-chat-hf"
PROTOCOL = {
    "finetune": {
        "data": [{"name": "teleqna"}],
        "lora": {"r": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["v_proj", "q_proj"]},
        "learning_rate": 1e-4,
        "schedule": "linear",
        "batch_size": 32,
        "epochs": 5.0,
    },
    "evaluate": {
        "judges": [{"name": "llama-guard-3", "model": "meta-llama/Llama-Guard-3-8B"}],
        "grader": {"model": "mistralai/Mixtral-8x7B-Instruct-v0.1"},
        "sampling": "safecomm",
        "max_new_tokens": 512,
    },
}


@pytest.fixture
def repeated_run(run_folder: Path, tmp_path: Path) -> Path:
    """The small run as if it had been the study's Llama-2 on TeleQnA, judged otherwise."""
    trials = pd.read_parquet(run_folder / "trials.parquet")
    names = {"asr/lab-harm": "asr/hex-phi", "accuracy/lab-teleqna": "accuracy/teleqna"}
    trials.columns = [next((c.replace(a, b) for a, b in names.items() if c.startswith(a)), c) for c in trials.columns]
    trials.to_parquet(tmp_path / "trials.parquet")
    sweep = json.loads((run_folder / "sweep.json").read_text()) | PROTOCOL
    judged = PROTOCOL["evaluate"] | {"judges": [{"name": "refusal", "model": None}], "sampling": "greedy"}
    sweep |= {"paper": "safecomm", "evaluate": judged, "model": {"base": "b", "aligned": MODEL}}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    return tmp_path


def test_numbers_match_the_papers() -> None:
    llama = find_published("safecomm", MODEL, ["teleqna"])
    assert llama.rates["hex-phi"] == pytest.approx(
        {"original": 0.02, "undefended": 0.075, "safe_instruct": 0.042, "safe_lora": 0.05, "safe_merge": 0.038}
    )
    assert llama.source == "SafeCOMM, arXiv 2506.00062 v3, table II"
    qwen = find_published("safecomm", "Qwen/Qwen2-7B-Instruct", ["tele-eval"])
    assert qwen.rates["tele-eval"]["safe_lora"] == pytest.approx(0.465)
    gemma = find_published("safecomm", "google/gemma-2b-it", [])
    assert gemma.rates["hex-phi"]["undefended"] == pytest.approx(0.885) and gemma.source.endswith("table III")
    newer = find_published("safemerge", "Qwen/Qwen2.5-7B-Instruct", ["teleqna"])
    assert newer.rates["direct-harm-4"]["safe_merge"] == pytest.approx(0.109)


def test_local_copy_is_recognized_by_folder_name() -> None:
    assert find_published("safecomm", "/mnt/models/Llama-2-7b-chat-hf", ["teleqna"]).model == MODEL


@pytest.mark.parametrize(
    ("paper", "model", "data", "said"),
    [
        ("safecom", MODEL, ["teleqna"], "no published results for 'safecom'; use one of safecomm, safemerge"),
        (
            "safecomm",
            "lab://aligned",
            ["teleqna"],
            "no results for aligned on teleqna; it has results for Llama-2-7b-chat",
        ),
        ("safecomm", MODEL, ["teleqna", "tele-eval"], r"on teleqna \+ tele-eval"),
        ("safecomm", MODEL, [], "with an adapter; it has .*gemma-2b-it with an adapter"),
    ],
)
def test_missing_results_list_the_existing_ones(paper: str, model: str, data: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_published(paper, model, data)


def test_sweep_that_follows_the_protocol_has_no_differences() -> None:
    assert departures(find_published("safecomm", MODEL, ["teleqna"]), PROTOCOL) == []


def test_page_compares_arms_and_benchmarks(repeated_run: Path) -> None:
    beside = {
        (name, row.arm): (rate.value, share) for name, row, rate, share in beside_published(read_run(repeated_run))
    }
    assert beside["hex-phi", "undefended"] == (pytest.approx(0.65), pytest.approx(0.075))
    assert {name for name, _ in beside} == {"hex-phi", "teleqna"}
    text = " ".join(write_report(repeated_run).read_text(encoding="utf-8").split())
    assert "SafeCOMM, arXiv 2506.00062 v3, table II: Llama-2-7b-chat-hf on teleqna" in text
    assert "<strong>7.5%</strong>" in text and "<strong>57.8%</strong>" in text
    assert "<code>evaluate.sampling</code></td><td>greedy</td><td>safecomm</td>" in text
    assert "<code>evaluate.judges.0.model</code></td><td>none</td><td>meta-llama/Llama-Guard-3-8B</td>" in text
    assert "<code>finetune." not in text


def test_terminal_comparison_fits_100_columns(repeated_run: Path) -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    console.print(results_table(repeated_run))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Compared with SafeCOMM" in text and "7.5%" in text
    assert "evaluate.sampling: greedy (study: safecomm)" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_sweep_without_a_paper_shows_no_comparison(run_folder: Path) -> None:
    assert 'id="published"' not in write_report(run_folder).read_text(encoding="utf-8")
