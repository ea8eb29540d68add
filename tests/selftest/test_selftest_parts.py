"""Parts of the self-test: kinds of nodes, sizes, dependent checks, records, and checks that fail."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import OutOfMemoryError

from safecomm.cli import app
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.weights import WeightDelta, Weights
from safecomm.errors import StorageError
from safecomm.selftest import work
from safecomm.selftest.answers import check_agreement, target_questions
from safecomm.selftest.bench import Bench, Outcome
from safecomm.selftest.checks import CHECKS, Check
from safecomm.selftest.models import ALIGNMENT_RANK, Files, make_adapter, make_models, make_random_pair
from safecomm.selftest.nodes import NODE_ID, Node, nodes_to_test
from safecomm.selftest.report import Record, all_ok, table, write_records
from safecomm.selftest.run import examine, reason_of
from safecomm.selftest.sizes import LAB, ONE_BILLION, TARGETS, Shape, sizes_for
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Replica

SHAPE = Shape(hidden=64, layers=2, heads=4, kv_heads=2, intermediate=128, vocabulary=2048, context=512)
NODE = Node(id="a", address="127.0.0.1", kind="CPU", gpus=0, free_gpus=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A random pair as GPUs get it, but small."""
    files = Files(tmp_path_factory.mktemp("pair"))
    make_random_pair(files, SHAPE)
    return files


def bench(files: Files, node: Node = NODE, said: list[str] | None = None) -> Bench:
    return Bench(node, LAB, files, (said if said is not None else []).append)


def ray_node(name: str, gpus: int = 0, model: str = "", **labels: str) -> dict[str, Any]:
    resources = {"CPU": 8.0} | ({"GPU": float(gpus), f"accelerator_type:{model}": 1.0} if gpus else {})
    labels = {NODE_ID: name, **labels}
    return {"NodeID": name, "NodeManagerAddress": name, "Alive": True, "Resources": resources, "Labels": labels}


def test_nodes_with_the_same_gpus_and_labels_are_one_kind() -> None:
    nodes = [
        ray_node("a", 8, "H100", pool="train"),
        ray_node("b", 8, "H100", pool="train"),
        ray_node("c", 8, "H100", pool="serve"),
        ray_node("d", 4, "H100", pool="train"),
        ray_node("e", 8, "A100", pool="train"),
    ]
    chosen = nodes_to_test(nodes, {name: {"GPU": 8.0} for name in "abcde"})
    assert [node.id for node in chosen] == ["a", "c", "d", "e"]
    assert chosen[0].kind == "8 x H100, pool=train"
    assert chosen[0].labels == {NODE_ID: "a"}


def test_node_with_most_free_gpus_represents_its_kind() -> None:
    nodes = [ray_node("a", 8, "H100"), ray_node("b", 8, "H100"), ray_node("c", 8, "H100")]
    (node,) = nodes_to_test(nodes, {"a": {}, "b": {"GPU": 3.0}, "c": {"GPU": 1.0}})
    assert (node.id, node.free_gpus) == ("b", 3)


def test_cpu_nodes_are_tested_if_there_are_no_gpus() -> None:
    head, dead = ray_node("head"), ray_node("dead", 8, "H100") | {"Alive": False}
    assert [node.id for node in nodes_to_test([head, ray_node("a", 1, "L4")], {})] == ["a"]
    assert [node.kind for node in nodes_to_test([head, dead], {})] == ["CPU"]


def test_gpus_get_models_of_a_billion_parameters_in_bf16() -> None:
    assert sizes_for(0) is LAB and sizes_for(1) is sizes_for(8) is ONE_BILLION
    assert ONE_BILLION.finetune.precision == "bf16" and LAB.finetune.precision == "fp32"
    assert ONE_BILLION.finetune.zero == LAB.finetune.zero == 3


def found(text: str) -> Callable[[Bench], Outcome]:
    return lambda bench: Outcome(text)


def test_dependents_of_a_failed_check_are_skipped(tmp_path: Path) -> None:
    def breaks(bench: Bench) -> Outcome:
        raise RuntimeError("first line\nCUDA error: out of memory")

    checks = [
        Check("models", found("made")),
        Check("fine-tune", breaks, ("models",)),
        Check("merge", found(""), ("fine-tune",)),
        Check("engine", found("up"), ("models",)),
        Check("two ranks", found(""), gpus=2),
    ]
    said: list[str] = []
    records = {record.check: record for record in examine(bench(Files(tmp_path), said=said), checks)}
    assert {name: (record.status, record.text) for name, record in records.items()} == {
        "models": ("ok", "made"),
        "fine-tune": ("failed", "RuntimeError: CUDA error: out of memory"),
        "merge": ("skipped", "needs fine-tune"),
        "engine": ("ok", "up"),
    }
    assert not all_ok(list(records.values()))
    assert "  fine-tune: failed: RuntimeError: CUDA error: out of memory (0 s)" in said
    assert "raise RuntimeError" in records["fine-tune"].trace


def test_check_without_enough_free_gpus_is_skipped(tmp_path: Path) -> None:
    node = Node(id="a", address="a", kind="8 x H100", gpus=8, free_gpus=1)
    (one, two) = examine(
        bench(Files(tmp_path), node), [Check("one", found(""), gpus=1), Check("two", found(""), gpus=2)]
    )
    assert (one.status, two.status) == ("ok", "skipped")
    assert two.text == "needs 2 of the node's 8 GPUs, of which 1 are free"


def test_every_check_comes_after_those_that_it_needs() -> None:
    for number, check in enumerate(CHECKS):
        assert set(check.needs) <= {other.name for other in CHECKS[:number]}


def test_printed_and_written_records_agree(tmp_path: Path) -> None:
    records = [
        Record("CPU", "fine-tune", "ok", "6 steps", 31.25, 3 << 29, 4 << 30, 951.4),
        Record("CPU", "engine", "failed", "the driver is too old", 2.0),
        Record("CPU", "answers", "skipped", "needs engine"),
    ]
    write_records(tmp_path / "results.json", records)
    written = json.loads((tmp_path / "results.json").read_text())
    assert [Record(**record) for record in written["records"]] == records and written["ok"] is False
    columns = [list(column.cells) for column in table(records).columns]
    assert columns[2:] == [
        ["", "31.2", "2.0", ""],
        ["", "1.50 GiB", "", ""],
        ["", "4.00 GiB", "", ""],
        ["", "951", "", ""],
    ]
    assert "failed: the driver is too old" in str(columns[1][2])


def test_a_random_pair_differs_by_low_rank_and_reads_back(pair: Files) -> None:
    weights = Weights(pair.aligned)
    assert weights.shape("model.layers.0.mlp.down_proj") == (SHAPE.hidden, SHAPE.intermediate)
    change = WeightDelta(pair.base, pair.aligned).of("model.layers.1.mlp.up_proj")
    sizes = torch.linalg.svdvals(change)
    assert sizes[ALIGNMENT_RANK - 1] > 10 * sizes[ALIGNMENT_RANK]  # what follows is bf16's rounding
    embedding = weights.get("model.embed_tokens.weight")
    assert embedding.dtype == torch.bfloat16 and embedding.shape[0] == SHAPE.vocabulary
    assert not embedding[-1].any() and embedding[10].any()


def test_random_adapter_changes_the_answers(pair: Files, tmp_path: Path) -> None:
    make_adapter(pair.aligned, 4, 0, tmp_path / "adapter")
    settings = EngineSettings(max_new_tokens=8, max_model_len=256, max_lora_rank=4, lora_targets=TARGETS)
    subjects = {"bare": None, "adapted": tmp_path / "adapter"}
    answers, measured = work.ask_transformers(pair.aligned, settings, target_questions(8), subjects)
    assert answers["bare"] != answers["adapted"]
    assert all(answer["response"] or answer["scores"] for each in answers.values() for answer in each)
    assert measured.tokens_per_second and measured.memory
    assert check_agreement(answers, answers, LAB) == (0.0, 1.0)


def test_unapplied_adapter_fails_with_a_reason(pair: Files, tmp_path: Path) -> None:
    make_adapter(pair.aligned, 4, 0, tmp_path / "made")
    made = Adapter.load(tmp_path / "made")
    elsewhere = {name.replace("layers.", "layers.9"): factors for name, factors in made.modules.items()}
    replace(made, modules=elsewhere).save(tmp_path / "adapter")
    settings = EngineSettings(max_new_tokens=8, max_model_len=256, max_lora_rank=4, lora_targets=TARGETS)
    replica = Replica("transformers", str(pair.aligned), vars(settings))

    def answers(bench: Bench) -> Outcome:
        asked = asyncio.run(replica.answer(target_questions(8), str(tmp_path / "adapter")))
        check_agreement({"adapter made": asked}, {"adapter made": asked}, LAB)
        return Outcome()

    (record,) = examine(bench(pair), [Check("answers", answers)])
    assert record.status == "failed"
    assert record.text.startswith(
        "adapter made: 12 of 12 questions got no answer: the engine does not apply the adapter"
    )


def test_answers_of_another_adapter_fail(pair: Files, tmp_path: Path) -> None:
    make_adapter(pair.aligned, 4, 0, tmp_path / "adapter")
    settings = EngineSettings(max_new_tokens=8, max_model_len=256, max_lora_rank=4, lora_targets=TARGETS)
    subjects = {"bare": None, "adapted": tmp_path / "adapter"}
    answers, _ = work.ask_transformers(pair.aligned, settings, target_questions(8), subjects)
    check = Check("answers", lambda bench: Outcome(str(check_agreement({"bare": answers["adapted"]}, answers, LAB))))
    (record,) = examine(bench(pair), [check])
    assert record.status == "failed" and "differs by" in record.text


def test_incompatible_adapter_fails_and_skips_the_merge(pair: Files, tmp_path: Path) -> None:
    other = Files(tmp_path)
    make_random_pair(other, replace(SHAPE, hidden=32))
    for folder in (pair.tuned, pair.safe):
        make_adapter(other.aligned, 4, 0, folder)
    try:
        checks = [
            Check("profile", lambda bench: Outcome(str(work.realign(pair)))),
            Check("merge", found(""), ("profile",)),
        ]
        first, second = examine(bench(pair), checks)
    finally:
        for folder in (pair.tuned, pair.safe):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    assert first.status == "failed" and "is for another model" in first.text
    assert (second.status, second.text) == ("skipped", "needs profile")


def test_node_without_the_storage_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not accessible on this node"):
        make_models(Files(tmp_path / "elsewhere" / "0"), LAB)
    assert not list(tmp_path.iterdir())


def test_folder_without_enough_space_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"GiB free, 1048576\.0 GiB needed"):
        make_models(Files(tmp_path), replace(LAB, disk=1 << 50))


def test_reason_is_the_innermost_cause_in_one_line() -> None:
    class WrapperError(Exception):
        cause = ValueError("Traceback ...\n\nthe real cause")

    assert reason_of(WrapperError("much text")) == "ValueError: the real cause"
    assert reason_of(StorageError("a: is full")) == "a: is full"
    assert reason_of(KeyError()) == "KeyError"
    killed = OutOfMemoryError("Task was killed due to the node running low on memory.\n\nRefer to the documentation")
    assert reason_of(killed) == "OutOfMemoryError: Task was killed due to the node running low on memory."


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--address", "127.0.0.1:1"], "--address: a cluster also needs --storage"),
        (["--storage", "s3://bucket/runs"], "is a bucket"),
        (["--json", "/nowhere/results.json"], "its folder does not exist"),
    ],
)
def test_wrong_usage_is_reported_immediately(options: list[str], reason: str) -> None:
    done = subprocess.run([sys.executable, "-m", "safecomm", "selftest", *options], capture_output=True, text=True)
    assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr


def test_command_exists() -> None:
    assert "selftest" in {command.callback.__name__ for command in app.registered_commands if command.callback}
