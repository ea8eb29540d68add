"""Damaged inputs through the real command line: each is used, or refused in a few lines, never with a traceback."""

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import spoil

from safecomm.data.lab.shipped import MODELS
from safecomm.defenses.adapter import Adapter, Factors

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"
SERVER = """
import json, os, sys, tempfile
import pandas, safetensors, torch
import safecomm.cli, safecomm.report.run, safecomm.report.page, safecomm.report.export, safecomm.plan.plan
for line in sys.stdin:
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        for stream, target in ((out, 1), (err, 2)):
            os.dup2(stream.fileno(), target)
        sys.stdin = open(os.devnull)
        sys.argv = ["safecomm", *json.loads(line)]
        try:
            safecomm.cli.main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for stream in (out, err):
        stream.seek(0)
        said.append(stream.read().decode(errors="replace"))
    print(json.dumps([code, *said]), flush=True)
"""
"""Imports once what takes seconds, and runs each command line in a child of its own."""
EACH = 8
"""Damages for each command."""


class CommandLine:
    """Runs commands, each through `safecomm.cli.main` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self._process = process

    def run(self, words: list[str]) -> tuple[int, str, str]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps(words), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        return code, out, err


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    folder = tmp_path_factory.mktemp("working")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, **pipes) as process:
        yield CommandLine(process)
        assert process.stdin
        process.stdin.close()


def _adapter(folder: Path) -> Path:
    names = {f"model.layers.{layer}.self_attn.q_proj": 64 for layer in (0, 1)}
    width = json.loads((MODELS / "aligned" / "config.json").read_text())["hidden_size"]
    modules = {name: Factors(torch.randn(2, width), torch.randn(width, 2), 1.0) for name in names}
    Adapter(modules, {"peft_type": "LORA", "target_modules": ["q_proj"]}, "test").save(folder)
    return folder


@pytest.fixture
def inputs(with_adapters: Path, pack: Path, tmp_path: Path) -> dict[str, Path]:
    """A run, a pack of evidence, a sweep, a policy, a data file, models and an adapter, to be damaged."""
    found = {"RUN": with_adapters, "PACK": tmp_path / "pack", "SWEEP": tmp_path / "sweeps" / "lab.yaml"}
    shutil.copytree(pack, found["PACK"])
    found["SWEEP"].parent.mkdir()
    found["SWEEP"].write_text(LAB.read_text().replace("storage: runs", f"storage: {tmp_path / 'new'}"))
    for name in ("base", "aligned"):
        found[name.upper()] = Path(shutil.copytree(MODELS / name, tmp_path / name))
    found["ADAPTER"] = _adapter(tmp_path / "adapter")
    found["POLICY"] = tmp_path / "policies" / "gate.yaml"
    found["POLICY"].parent.mkdir()
    found["POLICY"].write_text(
        "rules:\n  - {metric: asr, max: 0.9}\n  - {metric: accuracy, min: 0.9, tier: advisory}\n"
    )
    found["DATA"] = tmp_path / "data" / "rows.json"
    found["DATA"].parent.mkdir()
    found["DATA"].write_text(json.dumps([{"goal": f"a request {at}", "target": "Sure"} for at in range(30)]))
    return found


COMMANDS = [
    ("RUN", "report RUN"),
    ("RUN", "gate RUN --arm=safe_merge --policy=POLICY"),
    ("RUN", "export RUN --arm=safe_merge --out=NEW"),
    ("RUN", "compare RUN RUN"),
    ("RUN", "labels draw RUN --arm=safe_merge --out=NEW.csv"),
    ("POLICY", "gate RUN --arm=safe_merge --policy=POLICY"),
    ("PACK", "verify PACK"),
    ("SWEEP", "plan SWEEP"),
    ("SWEEP", "run SWEEP --address=127.0.0.1:1"),
    ("DATA", "data show advbench --path=DATA"),
    ("ALIGNED", "realign safe-lora --base=BASE --aligned=ALIGNED --adapter=ADAPTER --lowest=1 --out=NEW"),
    ("ADAPTER", "realign safe-lora --base=BASE --aligned=ALIGNED --adapter=ADAPTER --lowest=1 --out=NEW"),
    ("ALIGNED", "extract-lora --model=BASE --reference=ALIGNED --rank=2 --out=NEW"),
    ("ALIGNED", "evaluate --model=ALIGNED --benchmark=lab-harm --out=NEW --address=127.0.0.1:1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "command"), COMMANDS, ids=[f"{what} in {command}" for what, command in COMMANDS])
def test_damaged_inputs_end_in_a_message(
    target: str, command: str, inputs: dict[str, Path], command_line: CommandLine, tmp_path: Path
) -> None:
    place = inputs[target]
    files = sorted(path for path in (place if place.is_dir() else place.parent).rglob("*") if path.is_file())
    whole, rng, codes = {path: path.read_bytes() for path in files}, random.Random(command), Counter[int]()
    wrong = []
    for at in range(EACH):
        file = rng.choice(files)
        spoil(file, whole[file], rng)
        new = tmp_path / f"new-{at}"
        words = [_filled(word, {**inputs, "NEW": new}) for word in command.split()]
        code, out, err = command_line.run(words)
        codes[code] += 1
        is_quiet = command.startswith(("verify", "gate")) and out.strip()
        if code not in (0, 1, 2, 3) or "Traceback" in out + err or (code and not err.strip() and not is_quiet):
            wrong.append(f"{file.name} ({file.read_bytes()[:80]!r}): exit {code}: {err[-400:]}")
        if code and (new.exists() or new.with_suffix(".csv").exists()):
            wrong.append(f"{file.name}: exit {code}, but something was written")
        file.write_bytes(whole[file])
    assert wrong == [], "\n".join(wrong)
    assert codes[1] + codes[2] > 0


def _filled(word: str, places: dict[str, Path]) -> str:
    option, equals, value = word.rpartition("=")
    name, dot, suffix = value.partition(".")
    return f"{option}{equals}{places[name]}{dot}{suffix}" if name in places else word
