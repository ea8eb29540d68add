"""Thousands of damaged sweeps, run folders, data files and models: each is read or refused with one of our errors."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import pyzipper
import torch
from damage import spoil
from safetensors.torch import save_file

from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.custom import Columns
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.weights import Weights
from safecomm.errors import SafecommError
from safecomm.plan.files import check_files
from safecomm.plan.shapes import ModelShape, find_config
from safecomm.report.certificate import write_certificate
from safecomm.report.gate import decide
from safecomm.report.page import render
from safecomm.report.policy import Policy, Rule
from safecomm.report.release import released
from safecomm.report.run import headline, read_run
from safecomm.report.summary import write_pareto
from safecomm.serving.models import ModelFolder
from safecomm.spec import read_sweep
from safecomm.storage.store import Store

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
COUNTS = {"sweeps": (80, 1400), "runs": (25, 150), "data": (150, 2000), "models": (150, 2000)}
"""Mutations of each kind, in the fast run and in the slow one, which has 5,550 together; a run takes half a second."""


def _by_name(folder: Path) -> list[Path]:
    """Returns the files in an order that is the same in every session, unlike that of the store's keys."""
    return sorted(folder.rglob("*"), key=lambda path: (path.name, path.is_file() and path.stat().st_size, str(path)))


class Target:
    """A folder of files, one of which is damaged at a time, and what reads it."""

    def __init__(self, folder: Path, read: Callable[[], object], files: list[Path] | None = None):
        self.files = {path: path.read_bytes() for path in files or _by_name(folder) if path.is_file()}
        self.read = read

    def attack(self, count: int, seed: int) -> tuple[Counter[str], list[str]]:
        """Returns how many mutations were read and refused, and a line for each raw exception."""
        rng, found, raw = random.Random(seed), Counter[str](), list[str]()
        for at in range(count):
            file = rng.choice(list(self.files))
            spoil(file, self.files[file], rng)
            started = time.monotonic()
            try:
                self.read()
                found["read"] += 1
            except SafecommError as error:
                found["refused"] += 1
                if not str(error).strip() or len(str(error)) > 20_000:
                    raw.append(f"{at}: {file.name}: a message of {len(str(error))} characters")
            except Exception as error:
                where = error.__traceback__
                while where and where.tb_next:
                    where = where.tb_next
                line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
                raw.append(f"{at}: {file.name}: {type(error).__name__}: {str(error)[:150]} at {line}")
            if time.monotonic() - started > 20:
                raw.append(f"{at}: {file.name}: took more than 20 s")
            file.write_bytes(self.files[file])
        return found, raw


def sweeps(tmp_path: Path) -> Target:
    folder = Path(shutil.copytree(SWEEPS[0].parent, tmp_path / "sweeps"))

    def read() -> None:
        for path in folder.glob("*.yaml"):
            if path.read_bytes() != (SWEEPS[0].parent / path.name).read_bytes():
                check_files(read_sweep(path), str(path))

    return Target(folder, read, sorted(folder.glob("*.yaml")))


def runs(run_folder: Path, labelled_run: Path, tmp_path: Path) -> Target:
    storage = Path(shutil.copytree(run_folder.parent, tmp_path / "storage"))
    run = storage / "small"
    shutil.copy(labelled_run / "judges.json", run)
    write_pareto(run)
    write_certificate(read_run(run), Store(storage / "store"))
    policy = Policy(rules=[Rule(metric="asr", max=0.1), Rule(metric="asr", relative_to="original", max_rise=0.1)])
    turn = random.Random(0)

    def read() -> None:
        made = read_run(run)
        headline(made)
        if turn.random() < 0.2:  # a page takes a second
            render(made)
        decide(released(made, "safe_merge", 0), policy)

    store = [path for path in sorted((storage / "store").rglob("*")) if path.is_file()]
    return Target(run, read, [path for path in sorted(run.iterdir()) if path.is_file()] * 3 + store)


def data(tmp_path: Path) -> Target:
    rows = [{"q": f"What is channel {n}?", "o": ["one", "two"], "key": "A", "x": n} for n in range(30)]
    teleqna = {
        f"question {n}": {
            "question": f"q{n}?",
            "option 1": "a",
            "option 2": "b",
            "answer": "option 1: a",
            "category": "c",
        }
        for n in range(30)
    }
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame(rows).to_parquet(folder / "a.parquet")
    pd.DataFrame(rows).assign(o="x").to_csv(folder / "a.csv", index=False)
    (folder / "TeleQnA.json").write_text(json.dumps(teleqna))
    with pyzipper.AESZipFile(folder / "a.zip", "w", compression=pyzipper.ZIP_DEFLATED) as archive:
        archive.writestr("rows.json", json.dumps(rows))
    whole = {path: path.read_bytes() for path in folder.iterdir()}

    def read() -> None:
        for path in folder.iterdir():
            if path.read_bytes() == whole[path]:
                continue
            if path.name == "TeleQnA.json":
                load_examples("teleqna", path)
            else:
                columns = [Columns("q"), Columns("q", choices=("o",), answer="key"), Columns("q", reference="key")]
                for one, kind in zip(columns, ("red_team", "task", "task"), strict=True):
                    load_prompts("own", path, columns=one, kind=kind)  # type: ignore[arg-type]
                load_prompts("advbench", path)

    return Target(folder, read)


def models(tmp_path: Path) -> Target:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1}
    config |= {"intermediate_size": 8, "vocab_size": 9, "max_position_embeddings": 64, "num_key_value_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    name = "model.layers.0.self_attn.q_proj"
    save_file({f"{name}.weight": torch.randn(16, 16)}, folder / "shard.safetensors")
    index = {"weight_map": {f"{name}.weight": "shard.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    prefix = f"base_model.model.{name}.lora_"
    factors = {f"{prefix}A.weight": torch.randn(4, 16), f"{prefix}B.weight": torch.randn(16, 4)}
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v": 3}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))

    def read() -> None:
        ModelShape.of(find_config(str(folder)) or {})
        ModelFolder(folder, "").check_context(8, "max_model_len")
        weights = Weights(folder)
        weights.shape(name)
        weights.tensor(name)
        Adapter.load(folder).check()

    return Target(folder, read)


def attacked(kind: str, count: int, seed: int, run_folder: Path, labelled_run: Path, tmp_path: Path) -> Counter[str]:
    targets = {
        "sweeps": lambda: sweeps(tmp_path),
        "runs": lambda: runs(run_folder, labelled_run, tmp_path),
        "data": lambda: data(tmp_path),
        "models": lambda: models(tmp_path),
    }
    found, raw = targets[kind]().attack(count, seed)
    assert raw == [], "\n".join([f"{len(raw)} raw exceptions:", *raw])
    return found


@pytest.mark.parametrize("kind", ["sweeps", "runs", "data", "models"])
def test_damage_is_read_or_refused(kind: str, run_folder: Path, labelled_run: Path, tmp_path: Path) -> None:
    count = COUNTS[kind][0]
    assert attacked(kind, count, 0, run_folder, labelled_run, tmp_path)["refused"] >= count / 20


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("kind", ["sweeps", "runs", "data", "models"])
def test_five_thousand_mutations(kind: str, run_folder: Path, labelled_run: Path, tmp_path: Path) -> None:
    found = attacked(kind, COUNTS[kind][1], 1, run_folder, labelled_run, tmp_path)
    print(f"{kind}: {found['read']} read, {found['refused']} refused")
    assert found.total() == COUNTS[kind][1] and found["read"] and found["refused"]
