"""docs/cli.md: every command with its options, from the command line itself."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from safecomm import errors
from safecomm.cli import BUG_EXIT_CODE, app

HEAD = """\
# The command line

<!-- Generated from safecomm/cli by `make docs`; do not edit. -->

`safecomm COMMAND --help` prints the same. In a checkout without an activated environment, write
`.venv/bin/safecomm`.
"""
EXIT_CODES = f"""\
## Exit codes

| code | meaning |
|---|---|
| 0 | Success; for `safecomm gate`, GO. |
| {errors.SafecommError.exit_code} | An error, which one message explains; for `gate`, NO-GO or not \
measured; for `doctor` and `selftest`, a check that failed. |
| {errors.UsageError.exit_code} | Wrong usage, or a mistake in a sweep file. |
| 3 | For `gate`, INCONCLUSIVE. |
| {BUG_EXIT_CODE} | A bug in safecomm; the message names a file with the traceback. |
| {errors.StoppedError.exit_code} | Stopped with Ctrl-C; finished work is kept. |
"""
Command = Any
"""A command of click, which Typer brings along without types."""


def page() -> str:
    """Returns the page as Markdown."""
    commands = list(_leaves(typer.main.get_command(app), "safecomm"))
    overview = [f"| [{path}](#{path.replace(' ', '-')}) | {_first(one)} |" for path, one in commands]
    sections = [line for path, one in commands for line in _section(path, one)]
    return "\n".join([HEAD, "| command | what it does |", "|---|---|", *overview, "", *sections, EXIT_CODES])


def _leaves(command: Command, path: str) -> Iterator[tuple[str, Command]]:
    """Yields the commands that are no groups, with their full names."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from _leaves(inner, f"{path} {name}")


def _first(command: Command) -> str:
    return " ".join(command.help.partition("\n\n")[0].split())


def _section(path: str, command: Command) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield from (f"## {path}", "", command.help.strip(), "", "```text", re.sub(r"{(\w+)}", r"\1", usage), "```", "")
    rows = list(filter(None, (_row(one, context) for one in command.params)))
    yield from ("| argument or option | meaning |", "|---|---|", *rows, "") if rows else ()


def _row(parameter: Command, context: Any) -> str:
    """Returns the row of an argument or option, from what `--help` prints."""
    written, meaning = parameter.get_help_record(context) or ("", "")
    if not written:
        return ""
    is_argument = parameter.param_type_name == "argument"
    placeholder = re.sub(r" ?<([^>]+)>", lambda found: "" if is_argument else f" {_placeholder(found[1])}", written)
    repeatable = "" if "Repeatable" in meaning or not parameter.multiple else " Repeatable."
    return f"| `{_cell(placeholder)}` | {_cell(_escaped(meaning))}{repeatable} |"


def _placeholder(kind: str) -> str:
    named = {"str": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH"}
    return named.get(kind.removesuffix(" range"), kind)  # else the words that it may be


def _escaped(text: str) -> str:
    """Returns a text whose angle brackets are no HTML; in code, between backticks, they are none anyway."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
