"""The commands, options, keys and examples of the README and the documentation are right.

Commands are parsed, and not run: the demo and what a sweep does are run by other tests.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from markdown_pages import NAMES, PAGES, ROOT, Command, blocks, commands, inline_code, written_sweeps

from safecomm.cli import app
from safecomm.report.policy import Policy
from safecomm.spec import Sweep, read_sweep
from safecomm.spec.drift import Drift
from safecomm.spec.json_schema import sweep_schema
from safecomm.storage.names import SWEEP

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCHEMA = sweep_schema()
CLI: Any = typer.main.get_command(app)
COMMANDS = commands()
SAFECOMM = ("safecomm", ".venv/bin/safecomm")
OTHERS = {"cd", "cat", "docker", "export", "git", "inspect", "kubectl", "pip", "sbatch", "source"}
"""Programs that are not ours; what they read of the repository is checked."""
READ_A_SWEEP = {"run", "plan", "submit", "doctor"}
FOREIGN_OPTIONS = {"--head", "--labels", "--target", "--working-dir"}
"""Options of Ray and docker that the pages mention."""


def leaf(words: Iterable[str]) -> tuple[Any, list[str]]:
    """Returns the command that words name, and its arguments."""
    command, rest = CLI, list(words)
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no such command: {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {flag for one in command.params for flag in [*one.opts, *one.secondary_opts]}


def ours(command: Command) -> list[str] | None:
    """Returns the arguments of a command of safecomm, also of one that Ray submits."""
    words = list(command.words)
    if "-m" in words and words[words.index("-m") + 1] == "safecomm":
        return words[words.index("-m") + 2 :]
    return words[1:] if words[0] in SAFECOMM else None


OURS = [one for one in COMMANDS if ours(one) is not None]


def test_the_pages_have_commands() -> None:
    assert len(OURS) > 30 and {page for page in NAMES if blocks(page, "bash")} == {one.page for one in COMMANDS}


@pytest.mark.parametrize("command", OURS, ids=str)
def test_commands_of_safecomm_parse(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, arguments = leaf(ours(command) or [])
    if runs := [word for word in arguments if word.startswith("runs/")]:
        monkeypatch.chdir(tmp_path)
        for run in runs:
            Path(run).mkdir(parents=True)
            (Path(run) / SWEEP).touch()
    read = found.make_context(found.name, arguments)
    assert read.args == [] and set(read.params) == {one.name for one in found.params if one.expose_value}


@pytest.mark.parametrize("command", [one for one in OURS if (ours(one) or [""])[0] in READ_A_SWEEP], ids=str)
def test_sweeps_with_their_overrides_are_valid(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, arguments = leaf(ours(command) or [])
    given = found.make_context(found.name, arguments).params
    if given["sweep"] is None:
        return
    sweep = ROOT / given["sweep"]
    if (written := written_sweeps().get(str(given["sweep"]))) is not None:
        sweep = tmp_path / "sweep.yaml"
        sweep.write_text(written, encoding="utf-8")
    models = read_sweep(sweep, list(given["set_"] or [])).model
    local = all(model.startswith("lab://") for model in (models.base, models.aligned))
    needs = {"plan": (), "doctor": ("hub",)}.get((ours(command) or [""])[0], ("hub", "GPU"))
    assert local or all(need in command.comment for need in needs), f"its comment must name {' and '.join(needs)}"


def test_commands_that_name_a_published_judge_say_that_they_need_the_hub() -> None:
    named = [one for one in OURS if "llama-guard" in " ".join(one.words)]
    assert named and all("hub" in one.comment for one in named)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in OURS], ids=str)
def test_other_commands_exist(command: Command) -> None:
    program, *words = command.words
    if program == "make":
        assert all(re.search(rf"^{word}:", MAKEFILE, re.M) for word in words)
    elif program in ("python", ".venv/bin/python"):
        source = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
    elif program == "ray":
        _parse_as_ray(words)
    else:
        assert program in OTHERS
    for path in re.findall(r"(?<![\w/.])(?:docs|sweeps|scripts|benchmarks)/[\w./-]+|cluster\.yaml", " ".join(words)):
        assert (ROOT / path).exists() or path in written_sweeps(), path


def _parse_as_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    command: Any = cli
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.parametrize("page", NAMES)
def test_mentioned_make_targets_exist(page: str) -> None:
    named = [code.removeprefix("make ") for code in inline_code(page) if code.startswith("make ")]
    assert [target for target in named if not re.search(rf"^{target}:", MAKEFILE, re.M)] == []


@pytest.mark.parametrize("page", NAMES)
def test_mentioned_commands_and_their_options_exist(page: str) -> None:
    mentioned = [code.split() for code in inline_code(page) if code.split()[0] in SAFECOMM]
    for words in [words for words in mentioned if words[1:] and words[1][0] not in "-C"]:  # COMMAND, --version
        command = CLI
        for word in words[1:]:
            if hasattr(command, "commands"):
                assert word in command.commands, " ".join(words)
                command = command.commands[word]
        assert {word for word in words if word.startswith("--")} <= options_of(command), " ".join(words)


@pytest.mark.parametrize("page", NAMES)
def test_mentioned_options_exist(page: str) -> None:
    known = FOREIGN_OPTIONS | {"--help"}
    for command in [CLI, *_leaves(CLI)]:
        known |= options_of(command)
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    options = {word for code in inline_code(page) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
    assert [option for option in options - known if f'"{option}"' not in sources] == []


def _leaves(command: Any) -> list[Any]:
    inner = getattr(command, "commands", None)
    return [command] if inner is None else [leaf for one in inner.values() for leaf in _leaves(one)]


@pytest.mark.parametrize("page", NAMES)
def test_mentioned_keys_of_a_sweep_exist(page: str) -> None:
    sections = set(SCHEMA["properties"]) - {"name", "model", "paper"}
    for code in inline_code(page):
        first, *rest = code.partition(":")[0].split(".")
        is_key = first in sections and all(re.fullmatch(r"[a-z_]+", part) for part in rest)
        if is_key and rest and rest[-1] not in ("md", "yaml"):
            assert _exists(SCHEMA, [first, *rest]), code


def _exists(section: dict[str, Any], keys: list[str]) -> bool:
    """Returns whether a dotted key leads somewhere in a part of the sweep file's schema."""
    if not keys:
        return True
    if "$ref" in section:
        section = SCHEMA["$defs"][section["$ref"].rpartition("/")[2]]
    if keys[0] in section.get("properties", {}):
        return _exists(section["properties"][keys[0]], keys[1:])
    return any(_exists(one, keys) for one in section.get("anyOf", []))


@pytest.mark.parametrize(
    "page", [page for page in NAMES if page != "docs/extending.md"]
)  # which test_extending.py runs
def test_yaml_examples_are_valid(page: str) -> None:
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if set(values) == {"drift"}:
            values = values["drift"]
            read = Drift.model_validate(values)
        else:
            read = (Policy if "rules" in values else Sweep).model_validate(values)
        assert read.model_fields_set == set(values), "every key is read, and under its own name"


def test_the_example_sweeps_have_the_arms_that_the_text_names() -> None:
    (readme,), (guide,) = blocks("README.md", "yaml"), blocks("docs/sweeps.md", "yaml")
    arms = {"safe_instruct", "safe_lora", "safe_merge"}
    assert arms == set(yaml.safe_load(readme)["arms"]) and arms | {"stacked"} == set(yaml.safe_load(guide)["arms"])


def test_example_sweeps_measure_the_files_that_they_train_on() -> None:
    for page in ("README.md", "docs/sweeps.md"):
        (sweep,) = [Sweep.model_validate(yaml.safe_load(block)) for block in blocks(page, "yaml")]
        assert sweep.finetune.data[0].path == sweep.evaluate.task[0].path is not None


def test_ci_and_the_readme_run_the_same_tests() -> None:
    targets = re.findall(r"^make ([^&\n]*)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert {"check", "check-install", "test", "WITH=faults"} == set(" ".join(targets).split()) - {".venv/.ready"}
    assert "make test" in PAGES["README.md"]


def test_the_demos_table_is_the_same_on_both_pages() -> None:
    (table,) = re.findall(r"^\| arm and setting .*?\n\n", PAGES["README.md"], re.S | re.M)
    assert table in PAGES["docs/demo.md"]
