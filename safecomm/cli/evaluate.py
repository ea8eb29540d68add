"""`safecomm evaluate`: a model of one's own, bare and with adapters, measured without a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from safecomm.cli.console import console
from safecomm.errors import UsageError

if TYPE_CHECKING:
    from safecomm.data.rows import Prompt
    from safecomm.evaluate.comparison import Measured
    from safecomm.evaluate.metrics import Rate
    from safecomm.evaluate.statistics import Difference


def evaluate(
    model: Annotated[str, typer.Option(help="A folder of safetensors, a hub id, lab://base or lab://aligned.")],
    benchmark: Annotated[
        list[str],
        typer.Option(help="NAME of `safecomm data list`, or NAME=PATH for a local copy; several may be given."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.json and rows.parquet.")],
    adapter: Annotated[list[Path] | None, typer.Option(help="A PEFT folder; several may be given.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="refusal, compliance, llama-guard-3, or NAME=MODEL for a guard; of several, the first decides."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take only so many prompts of each benchmark.", min=1)] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Put before every prompt.")] = None,
    engine: Annotated[str, typer.Option(help="vllm, or transformers where vLLM has no build.")] = "vllm",
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.", min=1)] = 512,
    max_model_len: Annotated[int, typer.Option(help="Longest prompt and answer together.", min=16)] = 2048,
    replicas: Annotated[int, typer.Option(help="Engines.", min=1)] = 1,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs of one engine.", min=1)] = 1,
    storage: Annotated[str, typer.Option(help="Folder for the store, which keeps every answer.")] = "runs",
    address: Annotated[str | None, typer.Option(help="A Ray cluster; without it Ray is started here.")] = None,
) -> None:
    """Measures a model, bare and with each adapter; asks only what has not been answered before."""
    judges = _judges(judge or ["refusal"])
    if engine not in ("vllm", "transformers"):
        raise UsageError(f"--engine {engine}: take vllm or transformers")
    from safecomm.evaluate.comparison import Asking, compare, write_results
    from safecomm.models import resolve_model
    from safecomm.store import Store

    prompts = [prompt for text in benchmark for prompt in _prompts(text, limit)]
    store = Store(Path(storage) / "store")
    measured, rows = compare(
        resolve_model(model, store, console.print),
        adapter or [],
        prompts,
        {name: resolve_model(guard, store, console.print) if guard else None for name, guard in judges.items()},
        Asking(engine, max_new_tokens, max_model_len, system_prompt, replicas, tensor_parallel),
        store,
        address,
        lambda line: console.print(escape(line), soft_wrap=True),
    )
    write_results(out, measured, rows)
    for table in _tables(measured):
        console.print(table)
    console.print(f"\nWritten to {escape(str(out))}: results.json, rows.parquet", soft_wrap=True)


def _judges(given: list[str]) -> dict[str, str | None]:
    """Returns name -> model, None for judges that need none."""
    from safecomm.spec.judges import GUARDS, PHRASES

    judges: dict[str, str | None] = {}
    for text in given:
        name, _, model = text.partition("=")
        if name in judges:
            raise UsageError(f"--judge {text}: each judge once")
        if not model and name not in PHRASES and name not in GUARDS:
            known = ", ".join([*PHRASES, *GUARDS])
            raise UsageError(f"--judge {text}: there is no such judge; take one of {known}, or NAME=MODEL")
        judges[name] = model or GUARDS.get(name)
    return judges


def _prompts(text: str, limit: int | None) -> "list[Prompt]":
    from safecomm.data.registry import load_prompts

    name, _, path = text.partition("=")
    return load_prompts(name, path or None, limit).rows


def _tables(measured: "list[Measured]") -> list[Table]:
    from safecomm.evaluate.metrics import METRICS

    tables = [_rates_table(measured, metric.name) for metric in METRICS.values()]
    return [table for table in tables if table.row_count] + _agreement_tables(measured)


TITLES = {"asr": "Attack success", "accuracy": "Telecom accuracy", "over_refusal": "Over-refusal"}


def _rates_table(measured: "list[Measured]", metric: str) -> Table:
    table = Table(title=TITLES[metric], title_justify="left", box=None, pad_edge=False)
    for column in ("", "benchmark or judge", "rate [95% interval]", "unscored", "minus the bare model's", "p"):
        table.add_column(column)
    for one in measured:
        for name, rate in one.rates.items():
            if name.partition("/")[0].partition("@")[0] != metric:
                continue
            difference = one.differences.get(name)
            minus, p = (_points(difference), f"{difference.p:.3g}") if difference else ("", "")
            label = name.removeprefix(metric).lstrip("/") or "all"
            table.add_row(escape(one.name), escape(label), _rate(rate), f"{rate.unscored:.1%}", minus, p)
    return table


def _points(found: "Difference") -> str:
    return f"{100 * found.value:+.1f} \\[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _rate(rate: "Rate") -> str:
    return f"{rate.value:.1%} \\[{100 * rate.low:.1f}, {100 * rate.high:.1f}] n={rate.n}"


def _agreement_tables(measured: "list[Measured]") -> list[Table]:
    rows = [(one.name, pair, found) for one in measured for pair, found in one.agreements.items()]
    if not rows:
        return []
    table = Table(title="Agreement of the judges", title_justify="left", box=None, pad_edge=False)
    for column in ("", "judges", "same verdict", "Cohen's kappa [95% interval]"):
        table.add_column(column)
    for name, pair, found in rows:
        kappa = f"{found.kappa:.2f} \\[{found.low:.2f}, {found.high:.2f}] n={found.n}"
        table.add_row(escape(name), pair, f"{found.same:.1%}", kappa)
    return [table]
