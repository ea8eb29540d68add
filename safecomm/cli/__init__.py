"""The command line, one function per command.

Heavy imports are inside the commands, so an invalid sweep file is reported immediately.
"""

import sys
from collections.abc import Callable

import typer

from safecomm.cli import cluster, defenses, release, sweeps
from safecomm.cli.data import data_app, lab_app
from safecomm.cli.evaluate import evaluate
from safecomm.cli.selftest import selftest
from safecomm.errors import SafecommError, SpecError, StoppedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Restores the safety of fine-tuned LLMs: searches the settings of defenses, and applies them.",
)
COMMANDS: list[Callable[..., None]] = [
    *(sweeps.run, sweeps.plan, sweeps.report, release.gate, release.export),
    *(cluster.submit, cluster.doctor, selftest),
    *(evaluate, defenses.profile, defenses.extract_lora),
]
for command in COMMANDS:
    app.command()(command)
app.add_typer(defenses.realign_app, name="realign")
app.add_typer(data_app, name="data")
app.add_typer(lab_app, name="lab")


def main() -> None:
    """Runs the command line; prints a SafecommError as its message and exits with its code."""
    try:
        app()
    except SpecError as error:
        for line in str(error).splitlines():
            print(line, file=sys.stderr)
        sys.exit(error.exit_code)
    except SafecommError as error:
        print(f"safecomm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("safecomm: stopped; finished work is kept", file=sys.stderr)
        sys.exit(StoppedError.exit_code)
