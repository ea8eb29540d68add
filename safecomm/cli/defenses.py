"""`safecomm realign`, `profile` and `extract-lora`: the defenses on a user's own models, without Ray."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape
from rich.table import Table

from safecomm.cli.console import console, progress
from safecomm.errors import DefenseError

if TYPE_CHECKING:
    from safecomm.defenses import Profile, Realigned
    from safecomm.defenses.combine import Combination
    from safecomm.defenses.safe_lora import Projection
    from safecomm.statistics.selection import Selection, Setting

realign_app = typer.Typer(no_args_is_help=True, help="Make a fine-tuned adapter, or a model, safer without training.")

MODEL = "a folder of safetensors, a hub id, or lab://base and lab://aligned"
Base = Annotated[str, typer.Option(help=f"The model before its alignment: {MODEL}.")]
Aligned = Annotated[str, typer.Option(help="The aligned model, on which the adapter was trained: likewise.")]
AdapterFolder = Annotated[Path, typer.Option("--adapter", help="The fine-tuned LoRA adapter: a PEFT folder.")]
Out = Annotated[Path, typer.Option(help="The new folder.")]
Seed = Annotated[int, typer.Option(help="Of the random projection, or of the entries that are dropped.")]
Targets = Annotated[
    str | None, typer.Option(help="Module types, e.g. q_proj,v_proj; all seven linear ones if left out.")
]
_PER_TYPE = "One value, or one a module type: q_proj=VALUE,v_proj=VALUE."
Threshold = Annotated[str | None, typer.Option(help=f"Act on the modules up to this rho. {_PER_TYPE}")]
Lowest = Annotated[str | None, typer.Option(help=f"Act on this many modules, those of the lowest rho. {_PER_TYPE}")]
Quantile = Annotated[str | None, typer.Option(help=f"Act on this share of the modules; 1 is all. {_PER_TYPE}")]
AboveNull = Annotated[
    str | None, typer.Option(help=f"Act on the modules whose rho exceeds a random one's by at most this. {_PER_TYPE}")
]


@realign_app.command("safe-lora")
def safe_lora(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    out: Out,
    threshold: Threshold = None,
    lowest: Lowest = None,
    quantile: Quantile = None,
    above_null: AboveNull = None,
    projection: Annotated[str, typer.Option(help="gram (the published one) or subspace.")] = "gram",
    rank: Annotated[int | None, typer.Option(help="For subspace: how many directions of the alignment.")] = None,
    energy: Annotated[float | None, typer.Option(help="For subspace: their share of the alignment, instead.")] = None,
    seed: Seed = 0,
) -> None:
    """SafeLoRA: projects the modules whose update disagrees with the alignment onto it."""
    from safecomm import defenses

    by = _selection(threshold, lowest, quantile, above_null)
    measured = _profile(base, aligned, adapter)
    how = cast("Projection", projection)  # which is checked there
    _save(defenses.safe_lora(measured, projection=how, rank=rank, energy=energy, seed=seed, **by), out)


@realign_app.command("safe-merge")
def safe_merge(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    safe_adapter: Annotated[Path, typer.Option(help="The adapter tuned on safety data: a PEFT folder.")],
    weight: Annotated[float, typer.Option(help="Weight of the fine-tuned adapter, 0 to 1; the safe one has the rest.")],
    out: Out,
    threshold: Threshold = None,
    lowest: Lowest = None,
    quantile: Quantile = None,
    above_null: AboveNull = None,
    combine: Annotated[str, typer.Option(help="cat, svd, linear, dare_linear or ties.")] = "cat",
    density: Annotated[float | None, typer.Option(help="For dare_linear and ties: the share of entries kept.")] = None,
    seed: Seed = 0,
) -> None:
    """SafeMERGE: merges the modules whose update disagrees with the alignment with a safe adapter's; else all."""
    from safecomm import defenses

    by = _selection(threshold, lowest, quantile, above_null)
    safe, measured = defenses.Adapter.load(safe_adapter), _profile(base, aligned, adapter)
    how = cast("Combination", combine)  # which is checked there
    _save(defenses.safe_merge(measured, safe, weight, combine=how, density=density, seed=seed, **by), out)


@realign_app.command("drop")
def drop(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    out: Out,
    threshold: Threshold = None,
    lowest: Lowest = None,
    quantile: Quantile = None,
    above_null: AboveNull = None,
) -> None:
    """The control for SafeLoRA: removes the update of the modules that disagree with the alignment."""
    from safecomm import defenses

    by = _selection(threshold, lowest, quantile, above_null)
    _save(defenses.drop(_profile(base, aligned, adapter), **by), out)


@realign_app.command("scale")
def scale(
    adapter: AdapterFolder,
    factor: Annotated[float, typer.Option(help="0 gives the aligned model, 1 the fine-tuned one.")],
    out: Out,
) -> None:
    """Multiplies the whole update: interpolation between the aligned and the fine-tuned model."""
    from safecomm import defenses

    _save(defenses.scale(defenses.Adapter.load(adapter), factor), out)


@realign_app.command("resta-instruct")
def resta_instruct(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    alpha: Annotated[float, typer.Option(help="How much of the alignment is added.")],
    out: Out,
    rank: Annotated[int, typer.Option(help="Rank of what is added; the adapter's grows by it.")] = 16,
    seed: Seed = 0,
) -> None:
    """RESTA: adds the alignment to the update once more."""
    from safecomm import defenses

    with progress("Reading the weights") as report:
        made = defenses.resta_instruct(
            defenses.Adapter.load(adapter), _folder(base), _folder(aligned), alpha, rank, seed=seed, report=report
        )
    _save(made, out)


@realign_app.command("full-weights")
def full_weights(
    base: Base,
    aligned: Aligned,
    model: Annotated[str, typer.Option(help="The telecom model, trained on all its weights: likewise.")],
    out: Out,
    reference: Annotated[
        str | None, typer.Option(help="What the telecom model was trained from; the aligned model if left out.")
    ] = None,
    threshold: Threshold = None,
    lowest: Lowest = None,
    quantile: Quantile = None,
    above_null: AboveNull = None,
    targets: Targets = None,
) -> None:
    """SafeLoRA on a model that has no adapter: writes a new checkpoint, shard by shard."""
    from safecomm import defenses

    by = _selection(threshold, lowest, quantile, above_null)
    with progress("Projecting") as report:
        made = defenses.project_full_weights(
            _folder(base),
            _folder(aligned),
            _folder(model),
            out,
            reference=_folder(reference) if reference else None,
            targets=_types(targets),
            report=report,
            **by,
        )
    _say(f"Projected {_counted(made.selected)} of {len(made.modules)} modules.", out)


def profile(
    base: Base,
    aligned: Aligned,
    adapter: AdapterFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Shows how far each module of an adapter agrees with the model's alignment."""
    measured = _profile(base, aligned, adapter)
    if as_json:
        print(json.dumps({"inputs": measured.inputs, "modules": [asdict(row) for row in measured.modules]}, indent=2))
        return
    table = Table("module", box=None, pad_edge=False)
    for title in ("rho", "of random", "above it", "||V||", "||dW||", "||C dW|| / ||dW||"):
        table.add_column(title, justify="right")
    for row in measured.modules:
        kept = row.projected_norm / row.update_norm if row.update_norm else 0.0
        figures = f"{row.rho:.5f}", f"{row.null:.3f}", f"{row.rho - row.null:+.3f}", f"{row.v_norm:.3g}"
        table.add_row(escape(row.name), *figures, f"{row.update_norm:.3g}", f"{kept:.2g}")
    console.print(table)


def extract_lora(
    model: Annotated[str, typer.Option(help=f"The telecom model, trained on all its weights: {MODEL}.")],
    reference: Annotated[str, typer.Option(help="What it is told as a change of, e.g. the aligned model: likewise.")],
    rank: Annotated[int, typer.Option(help="The adapter's rank.")],
    out: Out,
    targets: Targets = None,
    seed: Seed = 0,
) -> None:
    """Makes the adapter that is nearest to what full training changed, so that the model can be realigned."""
    from safecomm import defenses

    with progress("Extracting") as report:
        made = defenses.extract_lora(
            _folder(model), _folder(reference), rank, targets=_types(targets), seed=seed, report=report
        )
    made.save(out)
    table = Table("module", box=None, pad_edge=False)
    table.add_column("energy share held", justify="right")
    for name, share in made.energy.items():
        table.add_row(escape(name), f"{share:.2f}")
    console.print(table)
    if made.left_out:
        console.print(f"\nChanged too, and not in the adapter: {escape(', '.join(made.left_out))}", soft_wrap=True)
    _say("", out)


def _folder(reference: str) -> Path:
    from safecomm.serving.models import model_folder
    from safecomm.storage.store import Store

    return model_folder(reference, Store("runs/store"))


def _profile(base: str, aligned: str, adapter: Path) -> "Profile":
    from safecomm import defenses

    loaded = defenses.Adapter.load(adapter)
    with progress("Reading the weights") as report:
        return defenses.profile(_folder(base), _folder(aligned), loaded, report=report)


def _selection(threshold: str | None, lowest: str | None, quantile: str | None, above_null: str | None) -> "Selection":
    given = {"threshold": threshold, "lowest": lowest, "quantile": quantile, "above_null": above_null}
    return cast("Selection", {way: _setting(way, text) for way, text in given.items() if text is not None})


def _setting(way: str, text: str) -> "Setting":
    """Reads `0.6`, or `q_proj=0.6,v_proj=0.85`."""
    try:
        if "=" not in text:
            return float(text)
        pairs = (part.split("=") for part in text.split(","))
        return {kind.strip(): float(value) for kind, value in pairs}
    except ValueError as error:
        option = way.replace("_", "-")
        raise DefenseError(f"--{option} {text}: give a number, or q_proj=NUMBER,v_proj=NUMBER") from error


def _types(targets: str | None) -> tuple[str, ...]:
    from safecomm.defenses.full_weights import LINEAR

    return tuple(kind.strip() for kind in targets.split(",")) if targets else LINEAR


def _save(made: "Realigned", out: Path) -> None:
    made.save(out)
    _say(f"{made.defense} acted on {_counted(made.modules)} of {len(made.adapter.modules)} modules.", out)


def _counted(modules: Sequence[str]) -> str:
    """Returns e.g. `3 (1 q_proj, 2 v_proj)`."""
    kinds = Counter(name.rpartition(".")[2] for name in modules)
    inner = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return f"{len(modules)} ({inner})" if modules else "none"


def _say(what: str, out: Path) -> None:
    console.print(f"{escape(what)}\nWritten to {escape(str(out))}", soft_wrap=True)
