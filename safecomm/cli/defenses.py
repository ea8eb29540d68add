"""`safecomm realign`, `profile` and `extract-lora`: applies defenses to a user's models, without Ray."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from safecomm.cli.console import console, progress
from safecomm.cli.numbers import MAX_SEED
from safecomm.cli.realign_options import (
    MODEL,
    PER_TYPE,
    AdapterFolder,
    Aligned,
    Base,
    Out,
    level,
    read_settings,
    with_options,
)
from safecomm.defenses.defense import Realignment, Selecting
from safecomm.defenses.registry import DEFENSES
from safecomm.errors import UsageError
from safecomm.plan.files import check_given
from safecomm.spec.first_sweep import Given
from safecomm.storage.output_files import output_folder

if TYPE_CHECKING:
    from safecomm.defenses import Profile, Realigned
    from safecomm.defenses.moments import Moments
    from safecomm.statistics.selection import Selection

realign_app = typer.Typer(no_args_is_help=True, help="Make a fine-tuned adapter, or a model, safer without training.")

Seed = Annotated[int, typer.Option(help="Seed for the random projection.", min=0, max=MAX_SEED)]
Targets = Annotated[
    str | None, typer.Option(help="Module types, e.g. q_proj,v_proj; by default all seven linear ones.")
]


def _way(name: str) -> Any:
    return typer.Option(help=f"{Selecting.model_fields[name].description} {PER_TYPE}")


Threshold = Annotated[str | None, _way("threshold")]
Lowest = Annotated[str | None, _way("lowest")]
Quantile = Annotated[str | None, _way("quantile")]
AboveNull = Annotated[str | None, _way("above_null")]


def _realign(defense: type[Realignment], **options: Any) -> None:
    """Applies a defense to the adapter in the options, and writes the result."""
    models = {f"--{name}": options[name] for name in ("base", "aligned") if name in options}
    adapters = {f"--{name.replace('_', '-')}": options[name] for name in ("adapter", "safe_adapter") if name in options}
    check_given(models, adapters)
    out = output_folder("--out", options["out"])
    settings = defense.checked(read_settings(defense, options))
    inputs = [_input(need, options) for need in defense.needs]
    _save(settings.apply(*inputs), out)


def _input(need: str, options: dict[str, Any]) -> Any:
    from safecomm import defenses

    if need == "profile":
        return _profile(options["base"], options["aligned"], options["adapter"])
    if need == "moments":
        return _moments(options["aligned"], options["adapter"], options["safety_data"])
    if need in ("base", "aligned"):
        return _folder(options[need])
    return defenses.Adapter.load(options["safe_adapter" if need == "safe" else "adapter"])


for _name, _defense in DEFENSES.items():
    if issubclass(_defense, Realignment):
        realign_app.command(_name.replace("_", "-"))(with_options(_defense, partial(_realign, _defense)))


@realign_app.command("full-weights")
def full_weights(
    base: Base,
    aligned: Aligned,
    model: Annotated[str, typer.Option(help=f"The fully fine-tuned model: {MODEL}.")],
    out: Out,
    reference: Annotated[
        str | None, typer.Option(help="The model that was fine-tuned; by default the aligned model.")
    ] = None,
    threshold: Threshold = None,
    lowest: Lowest = None,
    quantile: Quantile = None,
    above_null: AboveNull = None,
    targets: Targets = None,
) -> None:
    """Applies SafeLoRA to a fully fine-tuned model; writes a new checkpoint shard by shard."""
    check_given({"--base": base, "--aligned": aligned, "--model": model, "--reference": reference}, {})
    out = output_folder("--out", out)
    from safecomm import defenses

    by = _selection(threshold, lowest, quantile, above_null)
    with progress("Projecting") as report:
        result = defenses.project_full_weights(
            _folder(base),
            _folder(aligned),
            _folder(model),
            out,
            reference=_folder(reference) if reference else None,
            targets=_types(targets),
            report=report,
            **by,
        )
    _print_written(f"Projected {_counts(result.selected)} of {len(result.modules)} modules.", out)


def profile(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Shows how well each module of an adapter agrees with the model's alignment."""
    check_given({"--base": base, "--aligned": aligned}, {"--adapter": adapter})
    measured = _profile(base, aligned, adapter)
    if as_json:
        print(json.dumps({"inputs": measured.inputs, "modules": [asdict(row) for row in measured.modules]}, indent=2))
        return
    table = Table("module", box=None, pad_edge=False)
    for title in ("rho", "random rho", "difference", "||V||", "||dW||", "||C dW|| / ||dW||"):
        table.add_column(title, justify="right")
    for row in measured.modules:
        shrinkage = row.projected_norm / row.update_norm if row.update_norm else 0.0
        figures = f"{row.rho:.5f}", f"{row.null:.3f}", f"{row.rho - row.null:+.3f}", f"{row.v_norm:.3g}"
        table.add_row(row.name, *figures, f"{row.update_norm:.3g}", f"{shrinkage:.2g}")
    console.print(table)


def extract_lora(
    model: Annotated[str, typer.Option(help=f"The fully fine-tuned model: {MODEL}.")],
    reference: Annotated[
        str, typer.Option(help=f"The model that the adapter will apply to, e.g. the aligned model: {MODEL}.")
    ],
    rank: Annotated[int, typer.Option(help="The adapter's rank.", min=1, max=4096)],
    out: Out,
    targets: Targets = None,
    seed: Seed = 0,
) -> None:
    """Extracts the LoRA adapter that best approximates a full fine-tune, so that the model can be realigned."""
    check_given({"--model": model, "--reference": reference}, {})
    out = output_folder("--out", out)
    from safecomm import defenses

    with progress("Extracting") as report:
        extracted = defenses.extract_lora(
            _folder(model), _folder(reference), rank, targets=_types(targets), seed=seed, report=report
        )
    extracted.save(out)
    table = Table("module", box=None, pad_edge=False)
    table.add_column("captured energy share", justify="right")
    for name, share in extracted.energy.items():
        table.add_row(name, f"{share:.2f}")
    console.print(table)
    if extracted.left_out:
        left_out = ", ".join(extracted.left_out)
        console.print(f"\nAlso changed, but not in the adapter: {left_out}", soft_wrap=True)
    _print_written("", out)


def _folder(reference: str) -> Path:
    from safecomm.serving.models import model_folder
    from safecomm.storage.store import Store

    return model_folder(reference, Store("runs/store"))


def _profile(base: str, aligned: str, adapter: Path) -> "Profile":
    from safecomm import defenses

    loaded = defenses.Adapter.load(adapter)
    with progress("Reading the weights") as report:
        return defenses.profile(_folder(base), _folder(aligned), loaded, report=report)


def _moments(aligned: str, adapter: Path, safety_data: str) -> "Moments":
    from safecomm.data.catalog.registry import load_examples
    from safecomm.data.custom import Columns
    from safecomm.defenses import Adapter
    from safecomm.defenses.moments import MOST_EXAMPLES, input_moments
    from safecomm.serving.chat import check_chat_template

    given = Given.of(safety_data)
    if len(given.columns) == 1:
        raise UsageError(f"--safety-data {safety_data:.100}: name two columns, that of the prompts and of the answers")
    columns = Columns(given.columns[0], response=given.columns[1]) if given.columns else None
    examples = load_examples(given.name, given.path or None, MOST_EXAMPLES, columns=columns).rows
    model = _folder(aligned)
    check_chat_template(model, {"messages": [{"role": "user", "content": "a prompt"}], "options": []}, "--aligned")
    return input_moments(model, list(Adapter.load(adapter).modules), examples, {})


def _selection(threshold: str | None, lowest: str | None, quantile: str | None, above_null: str | None) -> "Selection":
    given = {"threshold": threshold, "lowest": lowest, "quantile": quantile, "above_null": above_null}
    return cast("Selection", {way: level(way, text) for way, text in given.items() if text is not None})


def _types(targets: str | None) -> tuple[str, ...]:
    from safecomm.defenses.full_weights import LINEAR

    return LINEAR if targets is None else tuple(kind.strip() for kind in targets.split(","))


def _save(result: "Realigned", out: Path) -> None:
    result.save(out)
    total = len(result.adapter.modules)
    _print_written(f"{result.defense} changed {_counts(result.modules)} of {total} modules.", out)


def _counts(modules: Sequence[str]) -> str:
    """Returns e.g. `3 (1 q_proj, 2 v_proj)`."""
    kinds = Counter(name.rpartition(".")[2] for name in modules)
    inner = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{len(modules)} ({inner})" if modules else "none"


def _print_written(summary: str, out: Path) -> None:
    console.print(f"{summary}\nWritten to {out}", soft_wrap=True)
