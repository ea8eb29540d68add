"""A sweep that names what is not there is refused at once, with the key and the reason."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safecomm.cli import main
from safecomm.errors import SpecError, UsageError
from safecomm.plan.files import check_evaluation, check_files
from safecomm.spec import read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
LAB = SWEEPS / "lab.yaml"
CANNOT_RUN = [
    ("model.base=/nope", "model.base: /nope: there is no such folder"),
    ("model.aligned=./nope", "model.aligned: ./nope: there is no such folder"),
    ("model.aligned=/tmp", "model.aligned: /tmp: has no config.json; give a model's folder"),
    *(
        (f"model.base={name}", f"model.base: {name}: is neither a folder nor a Hub id")
        for name in ("a/b/c", "gpt2", "a--b/c", "a/b.", "a/b.git", "a/b.git@main", "-a/b", "a/..b")
    ),
    ("finetune.data=[{name: teleqna, path: /nope}]", "finetune.data.0.path: /nope: there is no such file or folder"),
    ("finetune.safety_data={name: safety-tuned-llamas, path: /nope}", "finetune.safety_data.path: /nope"),
    ("evaluate.red_team=[{name: advbench, path: /nope}]", "evaluate.red_team.0.path: /nope"),
    (
        "evaluate.red_team=[{name: advbench, attack: {suffix: {path: /nope}}}]",
        "evaluate.red_team.0.attack.suffix.path: /nope: there is no such file",
    ),
    (
        "evaluate.red_team=[{name: advbench, attack: {template: {path: /nope}}}]",
        "evaluate.red_team.0.attack.template.path: /nope: there is no such file",
    ),
    ("evaluate.labels=/nope", "evaluate.labels: /nope: there is no such file"),
    ("evaluate.judges=[{name: harmbench, template: /nope}]", "evaluate.judges.0.template: /nope"),
    ("evaluate.judges=[{name: own, model: /nope}]", "evaluate.judges (own): model: /nope: there is no such folder"),
    ("storage=/proc/x", "storage: /proc/x: /proc can't be written to"),
    (f"storage={LAB}", "is a file; choose another folder"),
]


@pytest.mark.parametrize(("override", "said"), CANNOT_RUN)
def test_what_is_not_there_is_named(override: str, said: str) -> None:
    with pytest.raises(SpecError) as found:
        check_files(read_sweep(LAB, [override, "evaluate.grader={model: lab://guard}"]), "lab.yaml")
    assert str(found.value).startswith("lab.yaml: ") and said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("sweep", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_of_the_bundled_sweeps_only_those_that_say_so_need_local_files(sweep: Path, tmp_path: Path) -> None:
    made = read_sweep(sweep, [f"storage={tmp_path / 'a' / 'b'}"])
    if sweep.stem in ("lab-teleqna", "tele-llms"):
        with pytest.raises(SpecError, match=r"(?s)there is no such"):
            check_files(made, str(sweep))
    else:
        check_files(made, str(sweep))
    assert list(tmp_path.iterdir()) == []


def test_plan_refuses_before_it_imports_anything_heavy() -> None:
    command = [sys.executable, "-m", "safecomm", "plan", str(LAB), "--set", "model.base=/nope"]
    started = time.monotonic()
    done = subprocess.run([*command[:1], "-X", "importtime", *command[1:]], capture_output=True, text=True)
    assert done.returncode == 2 and "model.base: /nope: there is no such folder" in done.stderr
    assert not any(f" {name}\n" in done.stderr for name in ("torch", "ray", "pandas", "scipy", "numpy", "optuna"))
    assert subprocess.run([*command, "--elsewhere"], capture_output=True).returncode == 0
    assert time.monotonic() - started < 120


@pytest.mark.parametrize("model", ["/nope", "./nope", "a/b/c", "~no-such-user/x", "x\0y", "/tmp", "", "x" * 5000])
def test_evaluate_names_what_is_not_there(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UsageError) as found:
        check_evaluation(
            model, [tmp_path / "adapter"], ["advbench=/nope", "xstest"], tmp_path / "labels.csv", {}, str(tmp_path)
        )
    lines = str(found.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["--model", "--adapter", "--benchmark advbench", "--labels"]
    check_evaluation("lab://aligned", [], ["lab-harm"], None, {}, "runs")
    check_evaluation("meta-llama/Llama-3.1-8B@main", [], [f"advbench={tmp_path}"], LAB, {}, "runs")


COMMANDS = [
    ("run", str(LAB), "--storage", "STORAGE", "--address", "127.0.0.1:1"),
    ("run", str(LAB), "--storage", "STORAGE", "--address", "http://[::1"),
    ("run", str(LAB), "--storage", "STORAGE", "--set", "model.base=/nope"),
    ("evaluate", "--model=lab://aligned", "--benchmark=lab-harm", "--out=STORAGE", "--address=127.0.0.1:1"),
    ("evaluate", "--model=/nope", "--benchmark=lab-harm", "--out=STORAGE"),
    ("evaluate", "--model=lab://aligned", "--benchmark=lab-harm", "--out=STORAGE", "--system-prompt=hf_" + "a" * 40),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_nothing_is_made_before_paths_and_addresses_are_looked_at(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["safecomm", *(word.replace("STORAGE", str(tmp_path / "new")) for word in words)])
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (1, 2) and list(tmp_path.iterdir()) == [] and time.monotonic() - started < 20
