"""The options of the commands that ask a model: `evaluate` and `data safety`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from safecomm.cli.numbers import MAX_SEED
from safecomm.errors import UsageError

Model = Annotated[str, typer.Option(help="A folder of safetensors, a hub id, lab://base or lab://aligned.")]
Benchmark = Annotated[
    list[str],
    typer.Option(
        metavar="NAME[=PATH]", help="NAME from `safecomm data list`, or NAME=PATH for a local copy. Repeatable."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for results.json, rows.parquet and disagreements.csv.")]
Adapter = Annotated[list[Path] | None, typer.Option(metavar="FOLDER", help="A PEFT folder. Repeatable.")]
Judge = Annotated[
    list[str] | None,
    typer.Option(
        metavar="JUDGE",
        help="refusal, compliance, llama-guard-3, NAME=MODEL for a guard model, or a judge as in a sweep, in braces: "
        "'{name: harmbench, template: FILE}'. Repeatable; the first decides.",
    ),
]
Grader = Annotated[str | None, typer.Option(help="The chat model that grades free-form task answers.")]
RefusalJudge = Annotated[
    str | None, typer.Option(help="The chat model that tells whether answers to harmless prompts refuse.")
]
Domain = Annotated[str, typer.Option(help="The subject of the task, for titles and the grader.")]
Labels = Annotated[
    Path | None,
    typer.Option(help="Human-labelled responses (prompt, response, unsafe), to correct for the judges' errors."),
]
ShuffleOptions = Annotated[
    int | None, typer.Option(help="A seed for shuffling the options of multiple-choice questions.", min=0, max=MAX_SEED)
]
Limit = Annotated[int | None, typer.Option(help="Maximum number of prompts per benchmark.", min=1)]
SystemPrompt = Annotated[str | None, typer.Option(help="A system prompt for every prompt.")]
ChatTemplateKwargs = Annotated[
    str | None, typer.Option(help="Arguments of the model's chat template, e.g. '{enable_thinking: false}'.")
]
Sampling = Annotated[
    Literal["greedy", "safecomm"],
    typer.Option(help="greedy, or safecomm as in the study: temperature 1, top-p 1, no top-k."),
]
Samples = Annotated[int, typer.Option(help="Answers per prompt with --sampling safecomm.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed for sampling answers.", min=0, max=MAX_SEED)]
MultipleChoice = Annotated[
    Literal["likelihood", "generation"], typer.Option(help="Score the most likely letter, or the letter in the answer.")
]
Engine = Annotated[
    Literal["auto", "vllm", "transformers"], typer.Option(help="auto: vLLM if it is installed, else transformers.")
]
MaxNewTokens = Annotated[int, typer.Option(help="Maximum tokens of an answer.", min=1)]
MaxModelLen = Annotated[
    int | None,
    typer.Option(
        help="Maximum tokens of a prompt and its answer together; by default 2048, or less if the model requires.",
        min=16,
    ),
]
Replicas = Annotated[int, typer.Option(help="Engines for the model, and for each judge.", min=1, max=10_000)]
TensorParallel = Annotated[int, typer.Option(help="GPUs per engine of the model.", min=1, max=10_000)]
Storage = Annotated[str, typer.Option(help="Folder or bucket for the store of answers and verdicts.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster; by default Ray starts on this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of tables; progress goes to stderr.")]


def template_arguments(text: str | None) -> dict[str, Any]:
    """Reads `--chat-template-kwargs`.

    Raises:
        UsageError: if they are not a YAML mapping.
    """
    from safecomm.spec.file import parse_yaml
    from safecomm.spec.model import template_arguments as checked

    try:
        found = parse_yaml(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UsageError(f"--chat-template-kwargs {text}: give settings in braces, e.g. '{{enable_thinking: false}}'")
    try:
        return checked(found)
    except ValueError as error:
        raise UsageError(f"--chat-template-kwargs: {error}") from error
