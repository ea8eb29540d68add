"""Times the report page in Chromium, with very many answers of an invented run.

    python benchmarks/explorer.py                  100,000 answers, about a minute
    python benchmarks/explorer.py --answers 10000

It needs Chromium and the extra `dev`. A time is that from the click or the key to the next frame that is drawn.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from safecomm.report.page import write_report
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
CHANGES: list[tuple[str, str | bool]] = [
    ("flipped", True),
    ("flipped", False),
    ("verdict", "unsafe"),
    ("verdict", ""),
    ("benchmark", "quiz"),
    ("benchmark", ""),
    ("disagree", True),
    ("disagree", False),
    ("search", "handover tower"),
    ("search", "no such words"),
    ("search", ""),
    ("arm-b", "original"),
    ("arm-b", "safe_lora"),
]
"""The changes of a filter that are timed: a part of the form by its test id, and its value."""
CHANGE = """async ([name, value]) => {
  const field = document.querySelector(`[data-testid=${name}]`), started = performance.now();
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise(drawn => requestAnimationFrame(() => setTimeout(drawn)));
  return performance.now() - started;
}"""
READY = "[data-testid=explorer][aria-busy=false]"
WORDS = ("network", "slice", "attach", "fails", "when", "a", "Tower", "loses", "its", "bearer", "nobody", "handover")


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
    """Writes the run, with a number of prompts for each arm, into a storage folder; returns its run folder."""
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


def chromium() -> str | None:
    """Returns the path of an installed Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def time_to_interactive(page: Any, url: str) -> float:
    """Opens a report and returns the seconds until its answers can be filtered."""
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(READY, timeout=120_000)
    return time.perf_counter() - started


def times_to_filter(page: Any) -> dict[str, float]:
    """Changes the filters of an open report one by one, and returns the seconds that each took."""
    return {f"{name} = {value or 'any'}": page.evaluate(CHANGE, [name, value]) / 1000 for name, value in CHANGES}


def main() -> None:
    """Prints the times."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description="Times the report page in Chromium.")
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = write_run(Path(folder), options.answers // len(ARMS))
        started = time.perf_counter()
        path = write_report(run)
        written = time.perf_counter() - started
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page()
        ready = [time_to_interactive(page, path.as_uri()) for _ in range(options.repeats)]
        filters = [times_to_filter(page) for _ in range(options.repeats)]
        size = path.stat().st_size
    table = Table(
        "what", "time", title=f"{options.answers:,} answers, {size / 1e6:.1f} MB; medians of {options.repeats}"
    )
    table.add_row("write the report", f"{written:.1f} s")
    table.add_row("open it until it is interactive", f"{median(ready):.2f} s")
    for name in filters[0]:
        table.add_row(name, f"{1000 * median(one[name] for one in filters):.0f} ms")
    Console().print(table)


if __name__ == "__main__":
    main()
