"""Fully fine-tuned models: extracts an adapter from one, or projects its weights directly."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from safetensors.torch import save_file
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import null_rho
from safecomm.defenses.low_rank import leading
from safecomm.defenses.realigned import Realigned
from safecomm.defenses.threads import Report, in_parallel, silent
from safecomm.defenses.weights import WeightDelta, Weights, by, open_safetensors
from safecomm.errors import DefenseError, ModelError
from safecomm.statistics.selection import ModuleProfile, Selection, select
from safecomm.storage.hub_cache import is_snapshot
from safecomm.storage.names import LINEAGE
from safecomm.storage.output_files import new_folder
from safecomm.storage.store import write_json

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear modules of Llama-style models."""
DESCRIBING = (".json", ".model", ".txt", ".jinja", ".md")
"""Suffixes of the files that are copied beside the weights."""


@dataclass(frozen=True, eq=False)
class Extracted(Realigned):
    """The adapter that best approximates a full fine-tune."""

    energy: dict[str, float]
    """The share of each module's change, ||W_model - W_reference||_F^2, that the adapter captures: 0 to 1."""
    left_out: list[str]
    """Changed tensors that the adapter does not cover, e.g. embeddings and norms."""


def extract_lora(
    model: str | Path,
    reference: str | Path,
    rank: int,
    *,
    targets: Sequence[str] = LINEAR,
    seed: int = 0,
    report: Report = silent,
) -> Extracted:
    """Returns the adapter on a reference model that best approximates a fully fine-tuned model.

    It lets a continually pre-trained model be realigned like a LoRA fine-tune. Per module it is the truncated SVD of
    W_model - W_reference, the nearest matrix of that rank in the Frobenius norm, computed by random projection.

    Args:
        model: checkpoint folder of the fine-tuned model.
        reference: checkpoint folder of the model that the adapter applies to, e.g. the aligned one.
        rank: the adapter's rank.
        targets: the module types to extract.
        seed: seed for the randomized SVD.
        report: progress callback.

    Raises:
        DefenseError: if the rank is below 1, or there are no targets.
        ModelError: if a checkpoint is broken, the checkpoints are of different models, or no target module differs.
    """
    if rank < 1:
        raise DefenseError(f"rank must be at least 1, not {rank}")
    _check_targets(targets)
    change = WeightDelta(Path(reference), Path(model))
    names = change.after.modules(targets)
    for name in names:
        change.shape(name)

    nearest = in_parallel(lambda name: _nearest(change.of(name), rank, seed), names, report)
    found = dict(zip(names, nearest, strict=True))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(reference),
        "target_modules": list(targets),
    }
    adapter = Adapter({name: factors for name, (factors, _) in found.items()}, config, str(model))
    if not any(factors.B.any() for factors in adapter.modules.values()):
        raise ModelError(
            f"{model} and {reference}: are identical in every {', '.join(targets)}, so there is nothing to extract; "
            "use a model that was trained from the reference"
        )
    return Extracted(
        adapter,
        "extract_lora",
        {"rank": rank, "targets": list(targets), "seed": seed},
        names,
        {"model": str(model), "reference": str(reference)},
        {name: energy for name, (_, energy) in found.items()},
        sorted(_changed_tensors(change, {f"{name}.weight" for name in names})),
    )


def _check_targets(targets: Sequence[str]) -> None:
    if not targets or not all(targets):
        raise DefenseError("targets: name at least one module type, e.g. q_proj,v_proj")


def _nearest(difference: Tensor, rank: int, seed: int) -> tuple[Factors, float]:
    """Returns the factors of the nearest matrix of a rank, and the share of the energy that it captures."""
    U, S, Vh = leading(difference, rank, seed)
    total = float(difference.double().square().sum())
    root = S.sqrt()
    factors = Factors((root[:, None] * Vh).cpu(), (U * root).cpu(), 1.0)
    return factors, min(1.0, float(S.double().square().sum()) / total) if total else 1.0


@dataclass(frozen=True)
class Projection:
    """The result of projecting full weights."""

    modules: list[ModuleProfile]
    """The profile of each target module, in layer order."""
    selected: list[str]
    """The projected modules."""


def project_full_weights(
    base: str | Path,
    aligned: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    targets: Sequence[str] = LINEAR,
    report: Report = silent,
    **chosen: Unpack[Selection],
) -> Projection:
    """Projects a fully fine-tuned model's unsafe modules onto the alignment, i.e. SafeLoRA without an adapter.

    W <- W_reference + C (W_model - W_reference), with C as in SafeLoRA (arXiv 2405.16833). It processes one module at a
    time and holds one output shard in memory. All other tensors and files are copied from the model.

    Args:
        base: checkpoint folder of the model before its alignment.
        aligned: checkpoint folder of the aligned model.
        model: checkpoint folder of the fine-tuned model.
        out: the new checkpoint folder, created atomically.
        reference: checkpoint folder of the model that was fine-tuned; by default the aligned one.
        targets: the module types to project.
        report: progress callback, first for profiling and then for projection.
        **chosen: the selection criterion; `threshold` selects rho <= threshold.

    Raises:
        DefenseError: if the settings are invalid.
        ModelError: if a checkpoint is broken or of another model.
    """
    _check_targets(targets)
    alignment, change = WeightDelta(Path(base), Path(aligned)), WeightDelta(Path(reference or aligned), Path(model))
    names = change.after.modules(targets)
    for name in names:
        if (ours := change.shape(name)) != (theirs := alignment.shape(name)):
            raise ModelError(
                f"{model}: {name} is {by(ours)}, but {by(theirs)} in {aligned}; use checkpoints of the same model"
            )
    modules = []
    for name in names:
        modules.append(_figures(name, alignment, change))
        report(len(modules), len(names))
    if unchanged := [module.name for module in modules if module.v_norm == 0]:
        raise ModelError(
            f"{base} and {aligned}: are identical in {', '.join(unchanged)}, so there is no alignment to project onto; "
            "use a base model and its aligned version"
        )
    selected = select(modules, chosen)
    settings = {**chosen, "targets": list(targets)}
    inputs = {"base": base, "aligned": aligned, "model": model, "reference": reference or aligned}
    with new_folder(Path(out)) as half:
        _copy_with(half, change.after, lambda name: _projected_weight(name, alignment, change), selected, report)
        record = {"defense": "safe_lora on full weights", "settings": settings, "modules": selected}
        write_json(half / LINEAGE, record | {"inputs": {key: str(path) for key, path in inputs.items()}})
    return Projection(modules, selected)


@torch.no_grad()
def _figures(name: str, alignment: WeightDelta, change: WeightDelta) -> ModuleProfile:
    V, update = alignment.of(name), change.of(name)
    v_norm, update_norm = _norm(V), _norm(update)
    projected = _times_gram(V, update)
    projected_norm = _norm(projected)
    norms = update_norm * projected_norm
    return ModuleProfile(
        name=name,
        rho=float((projected * update).sum(dtype=torch.float64)) / norms if norms else 0.0,
        null=null_rho(alignment.shape(name)),
        v_norm=v_norm,
        update_norm=update_norm,
        projected_norm=projected_norm,
    )


@torch.no_grad()
def _projected_weight(name: str, alignment: WeightDelta, change: WeightDelta) -> Tensor:
    old, new = change.pair(name)
    projected = _times_gram(alignment.of(name), change.of(name))
    return (old.to(projected.device, projected.dtype) + projected).to(new.dtype).cpu()


def _times_gram(V: Tensor, update: Tensor) -> Tensor:
    """Returns C dW, multiplied in the order that takes the fewest operations."""
    norm = _norm(V)
    return torch.linalg.multi_dot([V, V.T, update]) / norm if norm else torch.zeros_like(update)


def _norm(matrix: Tensor) -> float:
    return math.sqrt(torch.linalg.vector_norm(matrix, dim=1).double().square().sum().item())


def _changed_tensors(change: WeightDelta, covered: set[str]) -> Iterator[str]:
    """Yields the names of tensors that differ between the checkpoints and are not covered by the adapter."""
    before, after = change.before, change.after
    for name in {*before.files, *after.files} - covered:
        if name not in before.files or name not in after.files or not _equal(before.get(name), after.get(name)):
            yield name


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


def _copy_with(
    out: Path, model: Weights, changed: Callable[[str], Tensor], modules: Sequence[str], report: Report
) -> None:
    """Copies a checkpoint folder file by file, replacing the weights of some modules."""
    remaining = {f"{name}.weight": name for name in modules}

    def tensor(key: str, opened: Any) -> Tensor:
        if key not in remaining:
            kept: Tensor = opened.get_tensor(key)
            return kept
        replaced = changed(remaining.pop(key))
        report(len(modules) - len(remaining), len(modules))
        return replaced

    shards = sorted(set(model.files.values()))
    for shard in shards:
        opened = open_safetensors(shard)
        tensors = {key: tensor(key, opened) for key in sorted(opened.keys())}
        save_file(tensors, out / shard.name, metadata=opened.metadata())
    for path in _described_by(model.folder):
        shutil.copyfile(path, out / path.name)


def _described_by(folder: Path) -> Iterator[Path]:
    """Yields a model's configuration, tokenizer, license and description, and none of the other files in its folder.

    Raises:
        ModelError: if one is a link to somewhere else than the Hub's cache of this model: the copy would publish it.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == LINEAGE or not path.is_file():
            continue
        if path.suffix not in DESCRIBING and path.name not in ("LICENSE", "NOTICE"):
            continue
        place = path.resolve().parent
        if place != folder.resolve() and not (
            is_snapshot(folder.resolve()) and place == folder.resolve().parents[1] / "blobs"
        ):
            raise ModelError(f"{path}: is a link to a file outside the model's folder; replace it by a copy")
        yield path
