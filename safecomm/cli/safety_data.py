"""`safecomm data safety`: makes safety examples from a model's own answers."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safecomm.cli import evaluate_options as options
from safecomm.cli.asked_model import asked_model
from safecomm.cli.console import console
from safecomm.cli.panel import judges_named, panel_of
from safecomm.cluster.reachable import check_ray_address
from safecomm.errors import EvaluationError, UsageError
from safecomm.plan.files import check_requests
from safecomm.spec.engine import engine_description
from safecomm.spec.first_sweep import Given
from safecomm.spec.secrets import refuse_secrets
from safecomm.storage.output_files import output_file, whole_file

if TYPE_CHECKING:
    from safecomm.judging.replay import Replay


def safety(
    model: options.Model,
    prompts: Annotated[
        str,
        typer.Option(
            help="Harmful prompts: a red-team benchmark, a safety set, or your own file with its column of prompts. "
            "Not a benchmark of the sweep.",
            metavar="NAME[=FILE[:PROMPT]]",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new JSON Lines file, with the columns prompt and response.")],
    judge: options.Judge = None,
    limit: options.Limit = None,
    system_prompt: options.SystemPrompt = None,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    engine: options.Engine = "auto",
    max_new_tokens: options.MaxNewTokens = 256,
    max_model_len: options.MaxModelLen = None,
    replicas: options.Replicas = 1,
    tensor_parallel: options.TensorParallel = 1,
    storage: options.Storage = "runs",
    address: options.Address = None,
) -> None:
    """Makes safety examples from a model's own answers to harmful prompts (GR-SAP, arXiv 2603.10243).

    Answers that the first judge calls safe are kept; the other prompts are asked again with the instruction to refuse.
    The default judge, refusal, looks at the start of an answer; for a model that will be used, name a model as judge.
    The licences of the prompts and of the model still apply.
    """
    texts = {"--system-prompt": system_prompt, "--chat-template-kwargs": chat_template_kwargs, "--model": model}
    refuse_secrets(texts | {"--judge": judge, "--prompts": prompts})
    given, out = _given(prompts), output_file("--out", out)
    check_requests(model, given.name, given.path, storage)
    check_ray_address(address or os.environ.get("RAY_ADDRESS", ""))
    refs = judges_named(judge or ["refusal"])
    from safecomm.data.catalog.registry import load_requests
    from safecomm.judging.replay import replay
    from safecomm.serving.protocol import EvaluationProtocol

    template = options.template_arguments(chat_template_kwargs)
    requests = load_requests(given.name, given.path or None, limit, *given.columns).rows
    asked = asked_model(model, storage, engine, max_model_len, replicas, tensor_parallel, address)
    console.print(engine_description(asked.engine))
    protocol = EvaluationProtocol(
        asked.engine, max_new_tokens, asked.length, system_prompt, chat_template_kwargs=template
    )
    panel, say = panel_of(refs, asked.store), partial(console.print, soft_wrap=True)
    found = replay(asked.folder, requests, panel, protocol, asked.store, asked.hardware, say)
    if not found.examples:
        raise EvaluationError(
            f"{model}: none of its answers to {len(requests)} prompts can be kept; nothing was written"
        )
    _write(found, out)
    for line in _outcome(found, given, out):
        say(line)


def _given(prompts: str) -> Given:
    """Returns the prompts that `--prompts` names, without reading any file."""
    given = Given.of(prompts)
    if len(given.columns) > 1:
        raise UsageError(f"--prompts {prompts}: name one column, that of the prompts")
    return given


def _write(found: "Replay", out: Path) -> None:
    lines = [json.dumps({"prompt": one.prompt, "response": one.response}) for one in found.examples]
    with whole_file(out) as half:
        half.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _outcome(found: "Replay", given: Given, out: Path) -> Iterator[str]:
    """Yields what was written, its licence, and how a sweep names it."""
    from safecomm.data.catalog.registry import entry_of

    yield (
        f"{len(found.own)} answers were safe, {len(found.told)} more when told to refuse; {found.left_out} prompts "
        "without a safe answer are left out."
    )
    if not given.columns:
        yield f"The prompts are {entry_of(given.name).licence}, and so may be what is made from them."
    named = Given("own-safety", str(out), ("prompt", "response")).in_yaml()
    yield f"Written to {out}. In a sweep:  safety_data: {named}"
