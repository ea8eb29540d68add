"""The command line, one function per command.

Heavy imports are inside the commands, so an invalid sweep file is reported immediately.
"""

import importlib.metadata
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from safecomm.cli import cluster, defenses, release, sweeps
from safecomm.cli.compare import compare
from safecomm.cli.data import data_app, lab_app
from safecomm.cli.evaluate import evaluate
from safecomm.cli.evidence import verify
from safecomm.cli.init import init
from safecomm.cli.labels import labels_app
from safecomm.cli.selftest import selftest
from safecomm.cli.serve import serve
from safecomm.cli.view import view
from safecomm.errors import DiskFullError, SafecommError, SpecError, StoppedError, UsageError, printable
from safecomm.storage.disk import report_disk_full

BUG_EXIT_CODE = 70
"""EX_SOFTWARE in sysexits.h."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"safecomm {importlib.metadata.version('safecomm')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Restores the safety of fine-tuned LLMs: searches the settings of defenses, and applies them."""


COMMANDS: list[Callable[..., None]] = [
    *(init, sweeps.run, sweeps.plan, sweeps.report, view, compare, release.gate, release.export, verify),
    *(serve, sweeps.schema),
    *(cluster.submit, cluster.doctor, selftest),
    *(evaluate, defenses.profile, defenses.extract_lora),
]
for command in COMMANDS:
    app.command()(command)
app.add_typer(defenses.realign_app, name="realign")
app.add_typer(labels_app, name="labels")
app.add_typer(data_app, name="data")
app.add_typer(lab_app, name="lab")


def main() -> None:
    """Runs the command line; prints a SafecommError as its message and exits with its code, a bug with 70."""
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # e.g. `| head`
        code = _without_output("", 0)
    except OSError as error:
        code = _without_output(f"safecomm: the output can't be written: {error.strerror}", 1)
    sys.exit(code)


def _run() -> str | int | None:
    try:
        with report_disk_full(Path.cwd()):
            app()
    except SystemExit as end:
        return end.code
    except SpecError as error:
        _say(str(error))
        return error.exit_code
    except SafecommError as error:
        if isinstance(error, DiskFullError):  # perhaps because the output goes there
            os.write(sys.stdout.fileno(), b"\n")
        _say(f"safecomm: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("safecomm: stopped; finished work is kept")
        return StoppedError.exit_code
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "safecomm":
            _say(_bug(error))
            return BUG_EXIT_CODE
        _say(
            f"safecomm: the package {error.name} is not installed, which this command needs; install all of safecomm "
            "with scripts/install.sh"
        )
        return 1
    except Exception as error:
        if isinstance(error, RuntimeError) and "home directory" in str(error):  # of `Path.expanduser`
            _say("safecomm: a path starts with ~ and a user that does not exist; write the path in full")
            return UsageError.exit_code
        _say(_bug(error))
        return BUG_EXIT_CODE
    return 0


def _without_output(message: str, code: int) -> int:
    """Prints a message about standard output, which Python would complain about again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if message:
        _say(message)
    return code


def _say(message: str) -> None:
    """Prints a message to standard error; if that can't be written, the exit code has to say enough."""
    try:
        print(printable(message), file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _bug(error: Exception) -> str:
    """Writes the traceback of an unexpected error to a file, and returns one line that names it."""
    said = (str(error).strip().splitlines() or [""])[0][:200]
    line = f"safecomm: unexpected {type(error).__name__}: {said}; this is a bug in safecomm. Please report it with"
    options: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "delete": False}
    try:
        with tempfile.NamedTemporaryFile("w", prefix="safecomm-", suffix=".log", **options) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return f"{line} its traceback, which could not be written to {tempfile.gettempdir()}"
    return f"{line} {file.name}"
