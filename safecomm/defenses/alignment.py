"""The alignment profile: how far each module's update agrees with the model's alignment, and its projection onto that.

With V = W_aligned - W_base and C = V V^T / ||V||_F, rho = cos(C dW, dW) is the criterion of SafeLoRA (arXiv 2405.16833)
and SafeMERGE (arXiv 2503.17239, eq. 1-3). C is d_out x d_out and is never formed: C B = V (V^T B) / ||V||_F, and rho
and the norms follow from r x r Gram matrices. rho depends on neither the threshold nor the merge weight, so one pass
over the weights serves every setting.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.hardware import device
from safecomm.defenses.threads import Report, in_parallel, silent
from safecomm.defenses.weights import WeightDelta, by, open_safetensors
from safecomm.errors import ModelError
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage.model_files import read_object
from safecomm.storage.names import PROFILE, PROJECTED
from safecomm.storage.store import write_json

BLOCK = 1 << 19
"""Elements of V per block; a block fits in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The alignment profile of one adapter, from which the defenses are computed for any settings."""

    modules: list[ModuleProfile]
    """The adapter's modules, in layer order."""
    projected: Mapping[str, Tensor]
    """C B of each module (d_out x r, float32 or float64), unscaled."""
    adapter: Adapter
    """The adapter."""
    base: Path
    """Checkpoint folder of the model before its alignment."""
    aligned: Path
    """Checkpoint folder of the model that the adapter was trained on."""

    @property
    def inputs(self) -> dict[str, str]:
        """Its inputs: the checkpoint folders and the adapter's content hash."""
        return {"base": str(self.base), "aligned": str(self.aligned), "finetuned": self.adapter.digest()}

    def save(self, folder: Path) -> None:
        """Writes `profile.json` and `projected.safetensors`, but not the adapter."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.projected), folder / PROJECTED)
        write_json(folder / PROFILE, {"inputs": self.inputs, "modules": [asdict(module) for module in self.modules]})

    @classmethod
    def load(cls, folder: Path, adapter: Adapter) -> "Profile":
        """Reads a profile that `save` wrote.

        Raises:
            ModelError: if the profile is incomplete or belongs to another adapter.
        """
        table = read_object(folder / PROFILE)
        inputs, file = table["inputs"], open_safetensors(folder / PROJECTED)
        if inputs["finetuned"] != adapter.digest():
            raise ModelError(
                f"{folder}: is the profile of another adapter than {adapter.source}; profile this one again"
            )
        modules = [ModuleProfile(**row) for row in table["modules"]]
        projected = {module.name: file.get_tensor(module.name).clone() for module in modules}
        return cls(modules, projected, adapter, Path(inputs["base"]), Path(inputs["aligned"]))


def profile(base: str | Path, aligned: str | Path, adapter: Adapter, *, report: Report = silent) -> Profile:
    """Computes the alignment profile of an adapter. Reads only the modules that it adapts, one per core at a time.

    Args:
        base: checkpoint folder of the model before its alignment.
        aligned: checkpoint folder of the model that the adapter was trained on.
        adapter: the fine-tuned adapter.
        report: progress callback.

    Raises:
        ModelError: if a checkpoint is broken, the checkpoints differ in shape or are identical, or the adapter is for
            another model.
    """
    adapter.check_trained()
    alignment = alignment_of(base, aligned, adapter)
    pairs = in_parallel(lambda name: _profile_module(alignment, name, adapter.modules[name]), adapter.modules, report)
    unchanged = [module.name for module, _ in pairs if module.v_norm == 0]
    if unchanged:
        raise ModelError(
            f"{base} and {aligned}: are identical in {', '.join(unchanged)}, so there is no alignment to project onto; "
            "use a base model and its aligned version"
        )
    projected = {module.name: product for module, product in pairs}
    return Profile([module for module, _ in pairs], projected, adapter, Path(base), Path(aligned))


def alignment_of(base: str | Path, aligned: str | Path, adapter: Adapter) -> WeightDelta:
    """Opens V = W_aligned - W_base for the modules that an adapter changes.

    Raises:
        ModelError: if a checkpoint is broken, the checkpoints differ in shape, or the adapter is for another model.
    """
    alignment = WeightDelta(Path(base), Path(aligned), adapter.transposed)
    for name, factors in adapter.modules.items():
        if (shape := alignment.shape(name)) != factors.shape:
            raise ModelError(
                f"{adapter.source}: is for another model than {aligned}: its update of {name} is {by(factors.shape)}, "
                f"but the weight is {by(shape)}; use the model that it was trained on"
            )
    return alignment


def null_rho(shape: tuple[int, int]) -> float:
    """Returns rho for a random V of shape d_out x d_in, which does not depend on the update."""
    return 1 / math.sqrt(1 + shape[0] / shape[1])


@torch.no_grad()
def _profile_module(alignment: WeightDelta, name: str, factors: Factors) -> tuple[ModuleProfile, Tensor]:
    """Returns a module's profile and C B; rho and C B are zero if V is."""
    product, v_norm = _times_gram(*alignment.pair(name), factors.B.to(device()))
    if not math.isfinite(v_norm):
        alignment.require_finite(name)
    projected = (product / v_norm if v_norm else product).cpu()
    return _figures(name, factors, projected, v_norm), projected


def _times_gram(old: Tensor, new: Tensor, B: Tensor) -> tuple[Tensor, float]:
    """Returns V V^T B (d_out x r) and ||V||_F for V = new - old, in at least float32, without storing V.

    Each of the two products computes the differences again: a block of V fits in the cache, all of V does not.
    """
    dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    left = B.T.to(dtype).contiguous()
    inner = torch.zeros(left.shape[0], old.shape[1], dtype=dtype, device=B.device)
    squares = 0.0
    for rows, V in _differences(old, new, inner):
        inner.addmm_(left[:, rows], V)
        # Sum the rows in float64: a float32 sum of millions of squares is wrong in the third digit.
        squares += torch.linalg.vector_norm(V, dim=1).double().square().sum().item()
    outer = torch.empty_like(left)
    for rows, V in _differences(old, new, inner):
        outer[:, rows] = inner @ V.T
    return outer.T.contiguous(), math.sqrt(squares)


def _differences(old: Tensor, new: Tensor, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields row blocks of new - old with the dtype and device of `like`; each block overwrites the previous one."""
    height = old.shape[0] if like.is_cuda else min(old.shape[0], max(1, BLOCK // old.shape[1]))
    V, subtrahend = torch.empty(2, height, old.shape[1], dtype=like.dtype, device=like.device)
    for start in range(0, old.shape[0], height):
        rows = slice(start, min(start + height, old.shape[0]))
        count = rows.stop - start
        V[:count].copy_(new[rows])
        yield rows, V[:count].sub_(subtrahend[:count].copy_(old[rows]))


def _figures(name: str, factors: Factors, projected: Tensor, v_norm: float) -> ModuleProfile:
    """Computes a module's statistics; all inner products of B A and C B A follow from r x r Gram matrices."""
    A, B, CB = factors.A.double(), factors.B.double(), projected.double()
    gram = A @ A.T

    def inner(left: Tensor, right: Tensor) -> float:
        return float(((left.T @ right) * gram).sum())

    update_norm, projected_norm = math.sqrt(max(inner(B, B), 0)), math.sqrt(max(inner(CB, CB), 0))
    return ModuleProfile(
        name=name,
        rho=inner(CB, B) / (update_norm * projected_norm) if update_norm * projected_norm > 0 else 0.0,
        null=null_rho(factors.shape),
        v_norm=v_norm,
        update_norm=abs(factors.scaling) * update_norm,
        projected_norm=abs(factors.scaling) * projected_norm,
    )
