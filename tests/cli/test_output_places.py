"""Outputs that can't be written are refused before any work, with the option and the reason."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import safecomm

from safecomm.errors import UsageError
from safecomm.storage.output_files import output_file, output_folder, whole_file

MODELS = ("--base=lab://base", "--aligned=lab://aligned")
COMMANDS = {
    "labels draw": ("labels", "draw", "RUN", "--out=PLACE.csv"),
    "init": ("init", "--out=PLACE.yaml"),
    "export": ("export", "RUN", "--out=PLACE"),
    "export --evidence": ("export", "RUN", "--evidence=PLACE"),
    "gate --markdown": ("gate", "RUN", "--max-asr=0.5", "--markdown=PLACE"),
    "gate --junit": ("gate", "RUN", "--max-asr=0.5", "--junit=PLACE"),
    "realign": ("realign", "safe-lora", *MODELS, "--adapter=ADAPTER", "--lowest=1", "--out=PLACE"),
    "realign full-weights": ("realign", "full-weights", *MODELS, "--model=lab://base", "--lowest=1", "--out=PLACE"),
    "extract-lora": ("extract-lora", "--model=lab://base", "--reference=lab://aligned", "--rank=2", "--out=PLACE"),
    "evaluate": ("evaluate", "--model=lab://aligned", "--benchmark=lab-harm", "--out=PLACE"),
    "data safety": ("data", "safety", "--model=lab://aligned", "--prompts=lab-harm", "--out=PLACE"),
    "lab build": ("lab", "build", "--out=PLACE"),
    "selftest --json": ("selftest", "--json=PLACE"),
}
HEAVY = {"torch", "transformers", "ray", "pandas", "scipy", "vllm"}


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system to which root can't write either."""
    folder = tmp_path_factory.mktemp("read-only")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def words_of(name: str, place: str, folder: Path) -> list[str]:
    """Returns a command with its inputs, which exist but hold nothing that it could use."""
    for inner, file in (("run", "sweep.json"), ("adapter", "adapter_config.json")):
        (folder / inner).mkdir(exist_ok=True)
        (folder / inner / file).write_text("{}")
    known = {"PLACE": place, "RUN": str(folder / "run"), "ADAPTER": str(folder / "adapter")}
    words = list(COMMANDS[name])
    for key, value in known.items():
        words = [word.replace(key, value) for word in words]
    return words


@pytest.mark.parametrize("name", COMMANDS)
def test_a_place_that_cannot_be_written_is_one_line(
    name: str, read_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command has inputs that it would refuse if it read them first."""
    for place, said in (
        (read_only / "deep" / "new", "Read-only file system"),
        (Path("/proc/new"), "can't be written to"),
        (tmp_path / ("x" * 252), "too long" if name in ("labels draw", "init") else ""),
        (tmp_path / ("x" * 300), "too long"),
        (tmp_path / ("é" * 130), "too long"),
        (Path("~no-such-user/x"), "home directory"),
    ):
        if said:
            assert safecomm(monkeypatch, *words_of(name, str(place), tmp_path)) == 2
            message = capsys.readouterr().err
            assert said in message and message.count("\n") == 1 and "choose another" in message


def test_nothing_heavy_is_imported_before_the_place_is_looked_at(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom safecomm.cli import main\nfor words in eval(sys.stdin.read()):\n"
        "    sys.argv = ['safecomm', *words]\n    try: main()\n    except SystemExit as end: print(end.code)\n"
        f"print(sorted({HEAVY} & sys.modules.keys()))"
    )
    every = [words_of(name, "/proc/new", tmp_path) for name in COMMANDS]
    done = subprocess.run([sys.executable, "-c", code], input=repr(every), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * len(every) + ["[]"]


def test_the_longest_names_that_a_file_system_has_are_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        with whole_file(output_file("--out", tmp_path / name)) as half:
            half.write_text("whole")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_what_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name, replaces in (("file", False), ("link", False), ("", True), ("/dev/null", True), ("file/below", True)):
        with pytest.raises(UsageError, match=r"--out .*; choose another file"):
            output_file("--out", tmp_path / name, replaces)
    for name in ("", "file"):
        with pytest.raises(UsageError, match="choose another output folder"):
            output_folder("--out", tmp_path / name)
    assert output_file("--out", tmp_path / "file", replaces=True) == tmp_path / "file"
    assert output_file("--out", Path("~/new")) == tmp_path / "new" and output_folder("--out", Path("~/a/b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize("words", [("verify",), ("report",), ("view",), ("compare", "x"), ("export", "--out=o")])
def test_an_input_with_a_name_that_is_too_long_is_one_line(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert safecomm(monkeypatch, *words, "x" * 300) == 2
    assert capsys.readouterr().err.count("\n") == 1
