"""`safecomm selftest` on this machine, with the lab's models: real Ray Train, DeepSpeed, vLLM, Serve and a guard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.models]

CHECKS = [
    "device",
    "models",
    "fine-tune",
    "profile and merge",
    "transformers",
    "engine",
    "answers",
    "replacement",
    "guard",
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def done(storage: Path) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    options = ["--storage", str(storage), "--json", str(storage / "results.json")]
    command = [sys.executable, "-m", "safecomm", "selftest", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def records(done: "subprocess.CompletedProcess[str]", storage: Path) -> dict[str, dict[str, Any]]:
    assert (storage / "results.json").is_file(), done.stdout + done.stderr
    return {record["check"]: record for record in json.loads((storage / "results.json").read_text())["records"]}


def test_every_check_is_ok_on_a_machine_that_runs_the_tests(
    done: "subprocess.CompletedProcess[str]", records: dict[str, dict[str, Any]]
) -> None:
    assert list(records) == CHECKS
    assert {record["status"] for record in records.values()} == {"ok"}, done.stdout
    assert done.returncode == 0


def test_measured_memory_is_shown_next_to_planned(records: dict[str, dict[str, Any]]) -> None:
    for check in ("fine-tune", "engine"):
        assert records[check]["memory_bytes"] > 1 << 28  # a process with torch loaded has more
        assert records[check]["planned_bytes"] > 1 << 28
    for check in ("fine-tune", "transformers", "answers"):
        assert records[check]["tokens_per_second"] > 0


def test_progress_and_then_a_table_are_printed(done: "subprocess.CompletedProcess[str]") -> None:
    for check in CHECKS:
        assert f"  {check} ...\n" in done.stdout
    assert "tokens/s" in done.stdout
    assert f"{len(CHECKS)} of {len(CHECKS)} checks are ok" in done.stdout


def test_no_files_or_processes_remain(done: "subprocess.CompletedProcess[str]", storage: Path) -> None:
    assert [path.name for path in storage.iterdir()] == ["results.json"]
