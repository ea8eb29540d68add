"""`safecomm evaluate`: a model of one's own, bare and with adapters, measured without a sweep."""

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
"""Tokens of the longest prompt and answer, for models that read as many."""


def evaluate(
    model: Annotated[str, typer.Option(help="A folder of safetensors, a hub id, lab://base or lab://aligned.")],
    benchmark: Annotated[
        list[str],
        typer.Option(help="NAME of `safecomm data list`, or NAME=PATH for a local copy; several may be given."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json, rows.parquet and disagreements.csv.")],
    adapter: Annotated[list[Path] | None, typer.Option(help="A PEFT folder; several may be given.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="refusal, compliance, llama-guard-3, NAME=MODEL for a guard, or a judge as in a sweep, in braces: "
            "'{name: harmbench, template: FILE}'. Several may be given; the first decides."
        ),
    ] = None,
    grader: Annotated[str | None, typer.Option(help="The chat model that grades free-form task answers.")] = None,
    domain: Annotated[str, typer.Option(help="What the task is about, for titles and the grader.")] = TELECOM.name,
    labels: Annotated[
        Path | None,
        typer.Option(help="Responses that people judged (prompt, response, unsafe), to correct the judges' errors."),
    ] = None,
    shuffle_options: Annotated[
        int | None, typer.Option(help="A seed: put the options of every multiple-choice question into another order.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take only so many prompts of each benchmark.", min=1)] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Put before every prompt.")] = None,
    chat_template_kwargs: Annotated[
        str | None, typer.Option(help="Arguments of the model's chat template, e.g. '{enable_thinking: false}'.")
    ] = None,
    sampling: Annotated[
        Literal["greedy", "safecomm"], typer.Option(help="greedy, or the study's: temperature 1, top-p 1, no top-k.")
    ] = "greedy",
    samples: Annotated[int, typer.Option(help="Answers to each prompt, under sampling safecomm.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    multiple_choice: Annotated[
        Literal["likelihood", "generation"], typer.Option(help="The likeliest letter counts, or the one written.")
    ] = "likelihood",
    engine: Annotated[
        Literal["auto", "vllm", "transformers"],
        typer.Option(help="auto: vLLM where it is installed, transformers elsewhere."),
    ] = "auto",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.", min=1)] = 512,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest prompt and answer together; 2048, or what the model reads.", min=16)
    ] = None,
    replicas: Annotated[int, typer.Option(help="Engines of the model, and of each judge.", min=1)] = 1,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs of one engine of the model.", min=1)] = 1,
    storage: Annotated[str, typer.Option(help="Folder or bucket for the store, which keeps every answer.")] = "runs",
    address: Annotated[str | None, typer.Option(help="A Ray cluster; without it Ray is started here.")] = None,
) -> None:
    """Measures a model, bare and with each adapter; asks only what has not been answered before."""
    if samples > 1 and sampling == "greedy":
        raise UsageError("--samples: greedy decoding gives one answer a prompt; several need --sampling safecomm")
    if not re.match(DOMAIN_NAME, domain):
        raise UsageError(f"--domain {domain}: give up to 40 letters, digits, blanks and hyphens, e.g. medical")
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


def _publish(out: Path, found: "Comparison", tables: "list[Table]", judges: list[str], asked: dict[str, Any]) -> None:
    """Writes the results, with what was asked, and prints them."""
    from safecomm.judging.results import write_results

    write_results(out, found.measured, found.rows, judges, found.judges, **asked)
    for table in tables:
        console.print(table)
    console.print(f"\nWritten to {escape(str(out))}: results.json, rows.parquet, disagreements.csv", soft_wrap=True)


def _arguments(text: str | None) -> dict[str, Any]:
    """Reads the arguments of a chat template."""
    import yaml

    try:
        found = yaml.safe_load(text) if text else {}
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"--chat-template-kwargs {text}: give settings in braces, e.g. '{{enable_thinking: false}}'")
    return found


def _judges(given: list[str]) -> list[Any]:
    """Reads the judges as a sweep would."""
    import yaml

    from safecomm.spec.judges import Judge, JudgeRef

    refs: list[JudgeRef] = []
    for text in given:
        name, equals, model = text.partition("=")
        try:
            value = {"name": name, "model": model} if equals else text
            in_braces = text.lstrip().startswith("{")
            ref: JudgeRef = TypeAdapter(Judge).validate_python(yaml.safe_load(text) if in_braces else value)
        except ValidationError as error:
            wrong = "; ".join(str(found["msg"]).removeprefix("Value error, ") for found in error.errors())
            raise UsageError(f"--judge {text}: {wrong}") from error
        except yaml.YAMLError as error:
            raise UsageError(f"--judge {text}: is not valid YAML") from error
        if ref.name in [other.name for other in refs]:
            raise UsageError(f"--judge {text}: each judge once")
        refs.append(ref)
    return refs


def _panel(refs: list[Any], grader: str | None, domain: Domain, store: "Store") -> "Panel":
    from safecomm.judging.model_judge import Panel
    from safecomm.serving.models import resolve_model
    from safecomm.spec.judges import Grader

    graded = Grader(model=grader).told_of(domain) if grader else None
    everyone = [*refs, *([graded] if graded else [])]
    models = {ref.name: resolve_model(ref.model, store) for ref in everyone if ref.runs_here}
    return Panel(refs, graded, models)


def _prompts(text: str, limit: int | None, shuffle: int | None) -> "list[Prompt]":
    from safecomm.data.catalog.registry import entry_of, load_prompts

    name, _, path = text.partition("=")
    return load_prompts(name, path or None, limit, shuffle=shuffle if entry_of(name).questions else None).rows
