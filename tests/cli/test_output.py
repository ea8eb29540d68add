"""The command line prints to any stream, offers near names, and prints JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safecomm.cli import main
from safecomm.data.catalog.registry import entry_of
from safecomm.errors import SpecError, UsageError
from safecomm.spec import read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"
SAFECOMM = f"{sys.executable} -m safecomm"
STREAMS = [
    ("--version > /dev/full", 1, "the output can't be written: No space left on device"),
    ("data list > /dev/full", 1, "the output can't be written: No space left on device"),
    ("report /nowhere 2> /dev/full", 2, ""),
    ("--version >&-", 0, ""),
    ("data list 2>&- >&-", 0, ""),
    ("data list | head -1 > /dev/null", 0, ""),
]


@pytest.mark.parametrize(("words", "code", "said"), STREAMS, ids=[words for words, _, _ in STREAMS])
def test_a_closed_or_full_stream_is_at_most_one_line(words: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{SAFECOMM} {words}"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert said in done.stderr and done.stderr.count("\n") == bool(said)


def test_a_terminal_in_ascii_shows_what_it_can() -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=C PYTHONIOENCODING=ascii COLUMNS=80 {SAFECOMM} data list",
        ],
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout.isascii() and b"advbench" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("evaluate.red_team=[advbnch]", "there is no dataset 'advbnch'; did you mean advbench?"),
        ("evaluate.red_team=[zzz]", "there is no dataset 'zzz'; `safecomm data list` lists them"),
        ("evaluate.judges=[refusl]", "there is no judge 'refusl'; did you mean refusal?"),
        ("search.arms={safe_lor: {}}", "search.arms.safe_lor: there is no such arm; did you mean safe_lora?"),
        ("arms={a: [{safe_lor: {}}]}", "there is no defense 'safe_lor'; did you mean safe_lora?"),
        ("search.algorithm=tpee", "there is no algorithm 'tpee'; did you mean tpe?"),
    ],
)
def test_a_name_that_is_nearly_right_is_offered(override: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_sweep(LAB, [override])
    assert said in str(caught.value).replace("search: arms", "search.arms")


def test_an_unknown_dataset_is_misuse() -> None:
    with pytest.raises(UsageError, match="did you mean xstest"):
        entry_of("xstst")


REALIGN = ["realign", "safe-lora", "--lowest=1", "--out=out"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*REALIGN, "--base=/nope", "--aligned=lab://aligned", "--adapter=x"],
            "--base: /nope: there is no such folder",
        ),
        ([*REALIGN, "--base=lab://base", "--aligned=a/b/c", "--adapter=x"], "--aligned: a/b/c: is neither"),
        ([*REALIGN, "--base=lab://base", "--aligned=lab://aligned", "--adapter=x"], "--adapter: x: there is no such"),
        (["extract-lora", "--model=/tmp", "--reference=/nope", "--rank=4", "--out=o"], "--reference: /nope: there is"),
        (["profile", "--base=/nope", "--aligned=/nope", "--adapter=/nope"], "--aligned: /nope: there is no such"),
        (["realign", "full-weights", "--base=/nope", "--aligned=/nope", "--model=/nope", "--out=o"], "--model: /nope"),
    ],
    ids=range(6),
)
def test_a_folder_that_is_not_there_is_named_by_its_option(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["safecomm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_json_is_all_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["safecomm", "data", "list", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and {"name", "title", "roles", "licence", "where", "page"} <= set(found[0])


@pytest.mark.parametrize("command", ["evaluate", "doctor", "run", "realign full-weights", "export"])
def test_the_help_shows_no_types_of_python(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["safecomm", *command.split(), "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "list[" not in capsys.readouterr().out
