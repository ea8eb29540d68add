"""`safecomm evaluate`: measures a user's model with and without adapters, without a sweep."""

import json
import os
import re
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from safecomm.cli import evaluate_options as options
from safecomm.cli.asked_model import asked_model
from safecomm.cli.console import PlainConsole, console
from safecomm.cli.panel import judge_models, judges_named, panel_of
from safecomm.cluster.reachable import check_ray_address
from safecomm.data.judgeable import check_gradable, check_judgeable
from safecomm.errors import UsageError
from safecomm.plan.files import check_evaluation
from safecomm.spec.engine import engine_description
from safecomm.spec.secrets import refuse_secrets
from safecomm.statistics.domain import DOMAIN_NAME, TELECOM, Domain, domain_of
from safecomm.storage.output_files import unwritable

if TYPE_CHECKING:
    from safecomm.data.rows import Prompt
    from safecomm.judging.comparison import Comparison


def evaluate(
    model: options.Model,
    benchmark: options.Benchmark,
    out: options.Out,
    adapter: options.Adapter = None,
    judge: options.Judge = None,
    grader: options.Grader = None,
    refusal_judge: options.RefusalJudge = None,
    domain: options.Domain = TELECOM.name,
    labels: options.Labels = None,
    shuffle_options: options.ShuffleOptions = None,
    limit: options.Limit = None,
    system_prompt: options.SystemPrompt = None,
    chat_template_kwargs: options.ChatTemplateKwargs = None,
    sampling: options.Sampling = "greedy",
    samples: options.Samples = 1,
    seed: options.Seed = 0,
    multiple_choice: options.MultipleChoice = "likelihood",
    engine: options.Engine = "auto",
    max_new_tokens: options.MaxNewTokens = 512,
    max_model_len: options.MaxModelLen = None,
    replicas: options.Replicas = 1,
    tensor_parallel: options.TensorParallel = 1,
    storage: options.Storage = "runs",
    address: options.Address = None,
    as_json: options.AsJson = False,
) -> None:
    """Measures a model without and with each adapter; reuses stored answers and verdicts."""
    _check(domain, out, sampling, samples)
    _check_lengths(max_new_tokens, max_model_len)
    texts = {"--system-prompt": system_prompt, "--chat-template-kwargs": chat_template_kwargs, "--model": model}
    texts |= {"--grader": grader, "--refusal-judge": refusal_judge}
    refuse_secrets(texts | {"--judge": judge, "--benchmark": benchmark})
    refs, template = judges_named(judge or ["refusal"]), options.template_arguments(chat_template_kwargs)
    judges = judge_models(refs, grader, refusal_judge)
    check_evaluation(model, adapter or [], benchmark, labels, judges, storage)
    check_ray_address(address or os.environ.get("RAY_ADDRESS", ""))
    # Once more as parsed: an escape sequence may have hidden one.
    parsed = {"--judge": [ref.model_dump_json() for ref in refs], "--chat-template-kwargs": json.dumps(template)}
    refuse_secrets(parsed)
    prompts = [prompt for text in benchmark for prompt in _prompts(text, limit, shuffle_options)]
    check_gradable(prompts, grader is not None, "--grader")
    check_judgeable(prompts, refs[0].name, "--judge")
    from safecomm.judging.comparison import compare
    from safecomm.judging.labels import Labelled
    from safecomm.judging.results import check_measured, check_no_others, write_results
    from safecomm.serving.protocol import EvaluationProtocol

    asked = asked_model(model, storage, engine, max_model_len, replicas, tensor_parallel, address)
    panel = panel_of(refs, asked.store, grader, refusal_judge, domain_of(domain))
    out_of_the_way = PlainConsole(stderr=True) if as_json else console  # standard output is for the JSON alone
    out_of_the_way.print(engine_description(asked.engine))
    protocol = EvaluationProtocol(
        asked.engine, max_new_tokens, asked.length, system_prompt, sampling, samples, seed, multiple_choice, template
    )
    request = {"model": model, "benchmarks": benchmark, "protocol": asdict(protocol)}
    check_no_others(out, **request)
    people, say = Labelled.read(labels) if labels else None, partial(out_of_the_way.print, soft_wrap=True)
    found = compare(asked.folder, adapter or [], prompts, panel, protocol, asked.store, asked.hardware, people, say)
    write_results(out, found.measured, found.rows, panel.names, found.judges, **request)
    _print(found, out, domain_of(domain), as_json)
    check_measured(found.rows)


def _check(domain: str, out: Path, sampling: str, samples: int) -> None:
    """Checks what can be checked without reading any file."""
    if samples > 1 and sampling == "greedy":
        raise UsageError("--samples: greedy decoding gives one answer per prompt; add --sampling safecomm")
    if not re.match(DOMAIN_NAME, domain):
        raise UsageError(f"--domain {domain}: use up to 40 letters, digits, spaces and hyphens, e.g. medical")
    if reason := unwritable(out):
        raise UsageError(f"--out {out}: {reason}; choose another folder")


def _check_lengths(max_new_tokens: int, max_model_len: int | None) -> None:
    if max_model_len and max_new_tokens >= max_model_len:
        raise UsageError(
            f"--max-new-tokens {max_new_tokens}: leaves no room for a prompt in --max-model-len {max_model_len}; lower "
            "the first or raise the second"
        )


def _print(found: "Comparison", out: Path, domain: Domain, as_json: bool) -> None:
    """Prints the results, as tables or as the JSON that was written."""
    from safecomm.cli.tables import comparison_tables
    from safecomm.judging.results import RESULTS

    if as_json:
        print((out / RESULTS).read_text(encoding="utf-8"), end="")
        return
    for table in comparison_tables(found.measured, found.judges, domain):
        console.print(table)
    console.print(f"\nWritten to {out}: results.json, rows.parquet, disagreements.csv", soft_wrap=True)


def _prompts(text: str, limit: int | None, shuffle: int | None) -> "list[Prompt]":
    from safecomm.data.catalog.registry import entry_of, load_prompts

    name, _, path = text.partition("=")
    return load_prompts(name, path or None, limit, shuffle=shuffle if entry_of(name).questions else None).rows
