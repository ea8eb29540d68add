"""What can't run is refused, each with its reason, before torch, Ray and the like are imported, which takes seconds."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from safecomm.data.lab.shipped import MODELS

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"
HEAVY = {"torch", "transformers", "ray", "vllm", "datasets", "deepspeed", "peft", "wandb"}
CODE = f"""
import contextlib, io, json, sys
from safecomm.cli import main
ended = []
for words in json.load(sys.stdin):
    sys.argv = ["safecomm", *words]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try: main()
        except SystemExit as end: ended.append([end.code, said.getvalue()])
print(json.dumps([ended, sorted({HEAVY!r} & sys.modules.keys())]))
"""
CANNOT_RUN = [
    (["model.base=FOLDER/nope"], 2, "model.base: FOLDER/nope: there is no such folder"),
    (["model.base=FOLDER/no-weights"], 2, "model.base: FOLDER/no-weights: has no *.safetensors"),
    (["model.aligned=FOLDER/no-tokenizer"], 2, "model.aligned: FOLDER/no-tokenizer: has no tokenizer"),
    (["model.aligned=FOLDER/no-template"], 2, "model.aligned: FOLDER/no-template: has no chat template"),
    (["model.aligned=FOLDER/damaged"], 2, "model.aligned: FOLDER/damaged/config.json: is not valid JSON"),
    (["model.base=lab://bse"], 2, "model.base: lab://bse: there is no such lab model; use lab://base"),
    (["evaluate.max_model_len=4096"], 2, "evaluate.max_model_len: is 4096, but the context length of"),
    (["finetune.data=[{name: teleqna, path: FOLDER/nope.json}]"], 2, "finetune.data.0.path: FOLDER/nope.json: there"),
    (["finetune.data=[{name: own, path: FOLDER/own.csv, prompt: q, response: a}]"], 1, "finetune.data.0: own: "),
    (["evaluate.red_team=[{name: own, path: FOLDER/own.csv, prompt: q}]"], 1, "evaluate.red_team.0: own: "),
    (["evaluate.task=[tele-eval]"], 2, "evaluate.grader: is missing: a chat model has to compare the answers to tele"),
    (["evaluate.task=[{name: o, path: FOLDER/own.csv, prompt: x, reference: y}]"], 2, "evaluate.grader: is missing"),
    (
        ["evaluate.red_team=[{name: o, path: FOLDER/own.csv, prompt: x}]"],
        2,
        "evaluate.judges: the prompts of o have no",
    ),
    (["evaluate.judges=[{name: own, model: a/b/c}]"], 2, "evaluate.judges (own): model: a/b/c: is neither a folder"),
    (["evaluate.labels=FOLDER/own.csv"], 1, "evaluate.labels: "),
    (["storage=/proc/x"], 2, "storage: /proc/x: /proc can't be written to"),
    (["evaluate.red_team=[lab-hrm]"], 2, "there is no dataset 'lab-hrm'; did you mean lab-harm?"),
]
EVALUATE = ["evaluate", "--out=FOLDER/new"]
CANNOT_BE_MEASURED = [
    (
        "--model=lab://aligned --benchmark=lab-hrm",
        2,
        "--benchmark lab-hrm: there is no dataset 'lab-hrm'; did you mean",
    ),
    ("--model=lab://aligned --benchmark=lab-safety", 2, "--benchmark lab-safety: has training examples but no prompts"),
    ("--model=lab://aligned --benchmark=tele-eval", 2, "--grader: is missing: a chat model has to compare"),
    ("--model=lab://aligned --benchmark=lab-harm --benchmark=lab-harm", 2, "--benchmark lab-harm: is given twice"),
    ("--model=lab://aligned --benchmark=advbench=FOLDER/own.csv", 1, "advbench: "),
    ("--model=FOLDER/no-template --benchmark=lab-harm", 2, "--model: FOLDER/no-template: has no chat template"),
    ("--model=lab://aligned --benchmark=lab-harm --grader=FOLDER/nope", 2, "--grader: FOLDER/nope: there is no such"),
    ("--model=lab://aligned --benchmark=lab-harm --judge=x=FOLDER/nope", 2, "--judge x: FOLDER/nope: there is no such"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that each lack something, and a file with two columns."""
    made = tmp_path_factory.mktemp("models")
    lacking = {"no-weights": ("*.safetensors",), "no-tokenizer": ("tokenizer*",), "no-template": (), "damaged": ()}
    for name, patterns in lacking.items():
        shutil.copytree(MODELS / "aligned", made / name)
        for file in [file for pattern in patterns for file in (made / name).glob(pattern)]:
            file.unlink()
    (made / "damaged" / "config.json").write_text('{"model_type"')
    for file in (made / "no-template").glob("chat_template*"):
        file.unlink()
    settings = json.loads((made / "no-template" / "tokenizer_config.json").read_text())
    (made / "no-template" / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": None}))
    (made / "own.csv").write_text("x,y\n" + "".join(f"a prompt {at},an answer\n" for at in range(40)))
    return made


def ended(commands: Sequence[Sequence[str]]) -> list[list[object]]:
    """Returns the exit code and the message of each command; asserts that none imported anything heavy."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=json.dumps(commands), capture_output=True, text=True, check=True
    )
    found, heavy = json.loads(done.stdout.splitlines()[-1])
    assert heavy == []
    return list(found)


def test_plan_refuses_sweeps_that_cannot_run(folder: Path, tmp_path: Path) -> None:
    commands = []
    for at, (overrides, _, _) in enumerate(CANNOT_RUN):
        (tmp_path / f"{at}.yaml").write_text(LAB.read_text())
        storage = [] if any(one.startswith("storage=") for one in overrides) else [f"storage={tmp_path / 'runs'}"]
        sets = [f"--set={one.replace('FOLDER', str(folder))}" for one in [*overrides, *storage]]
        commands.append(["plan", str(tmp_path / f"{at}.yaml"), *sets])
    for (_, code, said), (found, message) in zip(CANNOT_RUN, ended(commands), strict=True):
        assert found == code and said.replace("FOLDER", str(folder)) in str(message), message
        assert "Traceback" not in str(message)
    assert not (tmp_path / "runs").exists()


def test_run_refuses_the_same_before_it_makes_anything(folder: Path, tmp_path: Path) -> None:
    few = CANNOT_RUN[3:8]
    storage = f"--storage={tmp_path / 'runs'}"
    commands = [["run", str(LAB), storage, f"--set={one[0].replace('FOLDER', str(folder))}"] for one, _, _ in few]
    for (_, code, said), (found, message) in zip(few, ended(commands), strict=True):
        assert found == code and said.replace("FOLDER", str(folder)) in str(message), message
    assert list(tmp_path.iterdir()) == []


def test_evaluate_refuses_what_it_cannot_measure(folder: Path) -> None:
    commands = [
        [word.replace("FOLDER", str(folder)) for word in [*EVALUATE, *words.split()]]
        for words, _, _ in CANNOT_BE_MEASURED
    ]
    for (_, code, said), (found, message) in zip(CANNOT_BE_MEASURED, ended(commands), strict=True):
        assert found == code and said.replace("FOLDER", str(folder)) in str(message), message
        assert str(message).count("\n") == 1
    assert not (folder / "new").exists()


def test_what_is_missing_here_may_be_on_the_cluster(tmp_path: Path) -> None:
    sweep = yaml.safe_load(LAB.read_text()) | {"storage": str(tmp_path)}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(sweep | {"model": {"base": "/nope", "aligned": "/nope"}}))
    (found,) = ended([["plan", str(tmp_path / "s.yaml"), "--elsewhere"]])
    assert found[0] == 0, found
