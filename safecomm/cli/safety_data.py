"""`safecomm data safety`: makes safety examples from a model's own answers."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from safecomm.cli import evaluate_options as options
from safecomm.cli.console import console
from safecomm.cli.panel import judges_named, panel_of
from safecomm.cluster.reachable import check_ray_address
from safecomm.errors import EvaluationError, UsageError
from safecomm.plan.files import check_model
from safecomm.spec.engine import available_engine, engine_description
from safecomm.spec.first_sweep import Given
from safecomm.spec.secrets import refuse_secrets
from safecomm.storage.output_files import unwritable


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
    refuse_secrets({"--model": model, "--judge": judge, "--prompts": prompts, "--system-prompt": system_prompt})
    given = Given.of(prompts)
    if len(given.columns) > 1:
        raise UsageError(f"--prompts {prompts}: name one column, that of the prompts")
    if out.exists() or (reason := unwritable(out.parent)):
        raise UsageError(f"--out {out}: {'exists already' if out.exists() else reason}; choose another file")
    check_model(model)
    if given.path and not Path(given.path).expanduser().exists():
        raise UsageError(f"--prompts {given.name}: {given.path}: there is no such file or folder")
    check_ray_address(address or os.environ.get("RAY_ADDRESS", ""))
    refs = judges_named(judge or ["refusal"])
    from safecomm.data.catalog.registry import entry_of, load_requests
    from safecomm.judging.comparison import Hardware
    from safecomm.judging.replay import replay
    from safecomm.serving.models import resolve_model
    from safecomm.serving.protocol import EvaluationProtocol
    from safecomm.spec.cluster import Replicas
    from safecomm.storage.output_files import whole_file
    from safecomm.storage.store import Store

    template = options.template_arguments(chat_template_kwargs)
    requests = load_requests(given.name, given.path or None, limit, *given.columns).rows
    store = Store.of(storage)
    target = resolve_model(model, store)
    length = max_model_len or min(options.DEFAULT_LENGTH, target.context or options.DEFAULT_LENGTH)
    target.check_context(length, "--max-model-len")
    engine = available_engine() if engine == "auto" else engine
    console.print(engine_description(engine))
    protocol = EvaluationProtocol(engine, max_new_tokens, length, system_prompt, chat_template_kwargs=template)
    hardware = Hardware(
        Replicas(replicas=replicas, tensor_parallel=tensor_parallel), Replicas(replicas=replicas), address
    )
    say = partial(console.print, soft_wrap=True)
    found = replay(target, requests, panel_of(refs, store), protocol, store, hardware, say)
    if not found.examples:
        raise EvaluationError(
            f"{model}: none of its answers to {len(requests)} prompts can be kept; nothing was written"
        )
    with whole_file(out) as half:
        lines = [json.dumps({"prompt": one.prompt, "response": one.response}) for one in found.examples]
        half.write_text("\n".join(lines) + "\n", encoding="utf-8")
    say(
        f"{len(found.own)} answers were safe, {len(found.told)} more when told to refuse; {found.left_out} prompts "
        "without a safe answer are left out."
    )
    if not given.columns:
        say(f"The prompts are {entry_of(given.name).licence}, and so may be what is made from them.")
    say(
        f"Written to {out}. In a sweep:  safety_data: {Given('own-safety', str(out), ('prompt', 'response')).in_yaml()}"
    )
