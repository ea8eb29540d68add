"""`safecomm serve`: an OpenAI-compatible endpoint for one of a run's adapters."""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli.console import console
from safecomm.cli.release import Arm, Seed
from safecomm.cli.run_argument import Run
from safecomm.errors import UsageError

TOKEN = "SAFECOMM_TOKEN"


def serve(
    run: Run,
    arm: Arm = None,
    seed: Seed = 0,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other machines reach only their own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
) -> None:
    """Serves the adapter that `export` would write, as vLLM's OpenAI-compatible server, until Ctrl-C.

    Tools such as garak, PyRIT or inspect can then attack it, or people chat with it. Clients must send the token in
    SAFECOMM_TOKEN, or else one that is written to the run folder.
    """
    from safecomm.report.export import intact_adapter
    from safecomm.report.release import released
    from safecomm.report.run import read_run
    from safecomm.serving.models import model_folder
    from safecomm.serving.server import server_command, server_environment, settings_for
    from safecomm.spec.engine import available_engine
    from safecomm.storage.store import Store

    found = read_run(run)
    release = released(found, arm, seed)
    trial = release.trial
    if available_engine() != "vllm":
        raise UsageError("serve: needs vLLM, which is not installed here; run it on a machine that has it")
    model = model_folder(found.sweep["model"]["aligned"], Store(run.parent / "store"))
    adapter = intact_adapter(release) if trial["adapter_path"] else None
    settings = settings_for(
        adapter, found.sweep["evaluate"]["max_new_tokens"], found.sweep["evaluate"]["max_model_len"]
    )
    command = server_command(trial["arm"], model, adapter, settings, host, port)
    console.print(f"serving {trial['arm']} as model {trial['arm']!r} at http://{host}:{port}/v1", soft_wrap=True)
    sys.exit(subprocess.run(command, env=server_environment(_token(run))).returncode)


def _token(run: Path) -> str:
    """Returns the user's token, or a new one, which only the user can read."""
    if token := os.environ.get(TOKEN):
        return token
    file, token = run / "serve-token", secrets.token_urlsafe(24)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(token, encoding="utf-8")
    console.print(f"clients send the token in {file} (OPENAI_API_KEY=$(cat {file}))", soft_wrap=True)
    return token
