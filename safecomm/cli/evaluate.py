"""`safecomm evaluate`: measures a user's model with and without adapters, without a sweep."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from safecomm.cli.console import console
from safecomm.errors import UsageError
from safecomm.spec.engine import available_engine, engine_description
from safecomm.statistics.domain import DOMAIN_NAME, TELECOM, Domain, domain_of

if TYPE_CHECKING:
    from rich.table import Table

    from safecomm.data.rows import Prompt
    from safecomm.judging.comparison import Comparison
    from safecomm.judging.model_judge import Panel
    from safecomm.storage.store import Store

DEFAULT_LENGTH = 2048
"""Maximum tokens of a prompt and its answer together, for models with at least this context length."""


def evaluate(
    model: Annotated[str, typer.Option(help="A folder of safetensors, a hub id, lab://base or lab://aligned.")],
    benchmark: Annotated[
        list[str],
        typer.Option(help="NAME from `safecomm data list`, or NAME=PATH for a local copy. Repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json, rows.parquet and disagreements.csv.")],
    adapter: Annotated[list[Path] | None, typer.Option(help="A PEFT folder. Repeatable.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="refusal, compliance, llama-guard-3, NAME=MODEL for a guard model, or a judge as in a sweep, in "
            "braces: '{name: harmbench, template: FILE}'. Repeatable; the first decides."
        ),
    ] = None,
    grader: Annotated[str | None, typer.Option(help="The chat model that grades free-form task answers.")] = None,
    domain: Annotated[str, typer.Option(help="The subject of the task, for titles and the grader.")] = TELECOM.name,
    labels: Annotated[
        Path | None,
        typer.Option(help="Human-labelled responses (prompt, response, unsafe), to correct for the judges' errors."),
    ] = None,
    shuffle_options: Annotated[
        int | None, typer.Option(help="A seed for shuffling the options of multiple-choice questions.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of prompts per benchmark.", min=1)] = None,
    system_prompt: Annotated[str | None, typer.Option(help="A system prompt for every prompt.")] = None,
    chat_template_kwargs: Annotated[
        str | None, typer.Option(help="Arguments of the model's chat template, e.g. '{enable_thinking: false}'.")
    ] = None,
    sampling: Annotated[
        Literal["greedy", "safecomm"],
        typer.Option(help="greedy, or safecomm as in the study: temperature 1, top-p 1, no top-k."),
    ] = "greedy",
    samples: Annotated[int, typer.Option(help="Answers per prompt with --sampling safecomm.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed for sampling answers.")] = 0,
    multiple_choice: Annotated[
        Literal["likelihood", "generation"],
        typer.Option(help="Score the most likely letter, or the letter in the answer."),
    ] = "likelihood",
    engine: Annotated[
        Literal["auto", "vllm", "transformers"],
        typer.Option(help="auto: vLLM if it is installed, else transformers."),
    ] = "auto",
    max_new_tokens: Annotated[int, typer.Option(help="Maximum tokens of an answer.", min=1)] = 512,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            help="Maximum tokens of a prompt and its answer together; by default 2048, or less if the model requires.",
            min=16,
        ),
    ] = None,
    replicas: Annotated[int, typer.Option(help="Engines for the model, and for each judge.", min=1)] = 1,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs per engine of the model.", min=1)] = 1,
    storage: Annotated[str, typer.Option(help="Folder or bucket for the store of answers and verdicts.")] = "runs",
    address: Annotated[str | None, typer.Option(help="A Ray cluster; by default Ray starts on this machine.")] = None,
) -> None:
    """Measures a model without and with each adapter; reuses stored answers and verdicts."""
    if samples > 1 and sampling == "greedy":
        raise UsageError("--samples: greedy decoding gives one answer per prompt; add --sampling safecomm")
    if not re.match(DOMAIN_NAME, domain):
        raise UsageError(f"--domain {domain}: use up to 40 letters, digits, spaces and hyphens, e.g. medical")
    refs = _judges(judge or ["refusal"])
    from safecomm.cli.tables import comparison_tables
    from safecomm.judging.comparison import Hardware, compare
    from safecomm.judging.labels import Labelled
    from safecomm.serving.models import resolve_model
    from safecomm.serving.protocol import EvaluationProtocol
    from safecomm.spec.sweep import Replicas
    from safecomm.storage.store import Store

    prompts = [prompt for text in benchmark for prompt in _prompts(text, limit, shuffle_options)]
    store = Store.of(storage)
    panel = _panel(refs, grader, domain_of(domain), store)
    target = resolve_model(model, store)
    length = max_model_len or min(DEFAULT_LENGTH, target.context or DEFAULT_LENGTH)
    target.check_context(length, "--max-model-len")
    engine = available_engine() if engine == "auto" else engine
    console.print(engine_description(engine))
    protocol = EvaluationProtocol(
        engine,
        max_new_tokens,
        length,
        system_prompt,
        sampling,
        samples,
        seed,
        multiple_choice,
        _arguments(chat_template_kwargs),
    )
    found = compare(
        target,
        adapter or [],
        prompts,
        panel,
        protocol,
        store,
        Hardware(Replicas(replicas=replicas, tensor_parallel=tensor_parallel), Replicas(replicas=replicas), address),
        Labelled.read(labels) if labels else None,
        lambda line: console.print(escape(line), soft_wrap=True),
    )
    tables = comparison_tables(found.measured, found.judges, domain_of(domain))
    _publish(out, found, tables, panel.names, {"model": model, "benchmarks": benchmark, "protocol": asdict(protocol)})


def _publish(out: Path, found: "Comparison", tables: "list[Table]", judges: list[str], request: dict[str, Any]) -> None:
    """Writes the results with the request, and prints them."""
    from safecomm.judging.results import check_measured, write_results

    write_results(out, found.measured, found.rows, judges, found.judges, **request)
    for table in tables:
        console.print(table)
    console.print(f"\nWritten to {escape(str(out))}: results.json, rows.parquet, disagreements.csv", soft_wrap=True)
    check_measured(found.rows)


def _arguments(text: str | None) -> dict[str, Any]:
    """Reads the arguments of a chat template."""
    from safecomm.spec.file import parse_yaml

    try:
        found = parse_yaml(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"--chat-template-kwargs {text}: give settings in braces, e.g. '{{enable_thinking: false}}'")
    return found


def _judges(given: list[str]) -> list[Any]:
    """Parses judges like a sweep does."""
    from safecomm.spec.file import parse_yaml
    from safecomm.spec.judges import Judge, JudgeRef

    refs: list[JudgeRef] = []
    for text in given:
        name, equals, model = text.partition("=")
        try:
            value = {"name": name, "model": model} if equals else text
            in_braces = text.lstrip().startswith("{")
            ref: JudgeRef = TypeAdapter(Judge).validate_python(parse_yaml(text) if in_braces else value)
        except ValidationError as error:
            problems = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
            raise UsageError(f"--judge {text}: {problems}") from error
        except ValueError as error:
            raise UsageError(
                f"--judge {text}: is not valid YAML; write it as '{{name: NAME, model: MODEL}}'"
            ) from error
        if ref.name in [other.name for other in refs]:
            raise UsageError(f"--judge {text}: there is already a judge {ref.name}; use each name once")
        refs.append(ref)
    return refs


def _panel(refs: list[Any], grader: str | None, domain: Domain, store: "Store") -> "Panel":
    from safecomm.judging.model_judge import Panel
    from safecomm.serving.models import resolve_model
    from safecomm.spec.judges import Grader

    grader_ref = Grader(model=grader).told_of(domain) if grader else None
    all_refs = [*refs, *([grader_ref] if grader_ref else [])]
    models = {ref.name: resolve_model(ref.model, store) for ref in all_refs if ref.runs_here}
    return Panel(refs, grader_ref, models)


def _prompts(text: str, limit: int | None, shuffle: int | None) -> "list[Prompt]":
    from safecomm.data.catalog.registry import entry_of, load_prompts

    name, _, path = text.partition("=")
    return load_prompts(name, path or None, limit, shuffle=shuffle if entry_of(name).questions else None).rows
