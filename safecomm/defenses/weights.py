"""Reads a checkpoint's weights one module at a time.

It reads safetensors only: `model.safetensors`, or the shards that `model.safetensors.index.json` lists. Tensors are
views of memory-mapped files, so a 70B checkpoint takes only the memory of the current module.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safecomm.defenses.hardware import device
from safecomm.errors import ModelError
from safecomm.statistics.selection import module_type
from safecomm.storage.input_files import is_regular, whole_number
from safecomm.storage.model_files import read_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def open_safetensors(path: Path) -> Any:
    """Opens a safetensors file; its `get_tensor` maps the bytes instead of copying them.

    Raises:
        ModelError: if the file is missing, truncated or not a safetensors file.
    """
    if not is_regular(path):
        raise ModelError(f"{path}: is missing, or no regular file; download the folder again")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is truncated or not a safetensors file ({error}); download it again") from error


class Weights:
    """The weights of one checkpoint folder, by module name."""

    def __init__(self, folder: Path):
        """Reads the index of tensors and files.

        Raises:
            ModelError: if the folder has no safetensors checkpoint or a broken one.
        """
        self.folder = folder
        self._opened: dict[Path, Any] = {}
        self.files = self._find_files()
        """The file of each tensor."""

    def shape(self, module: str) -> tuple[int, int]:
        """Returns the shape of a module's weight, rows x columns, without reading it.

        Raises:
            ModelError: if the checkpoint lacks the module or stores it quantized, or the weight is no matrix.
        """
        header = self._holding(f"{module}.weight").get_slice(f"{module}.weight")
        if header.get_dtype() not in DTYPES:
            raise ModelError(
                f"{self.folder}: {module} is stored as {header.get_dtype()}; use an unquantized checkpoint in bf16, "
                "fp16 or fp32"
            )
        shape = tuple(header.get_shape())
        if len(shape) != 2 or 0 in shape:
            raise ModelError(
                f"{self.folder}: the weight of {module} has the shape {by(shape) or 'of one number'}, but must be a "
                "matrix; target linear modules, or download the checkpoint again"
            )
        return shape

    def get(self, tensor: str) -> Tensor:
        """Returns a tensor in the checkpoint's dtype, as a view of the memory-mapped file.

        Raises:
            ModelError: if the checkpoint lacks the tensor.
        """
        value: Tensor = self._holding(tensor).get_tensor(tensor)
        return value

    def tensor(self, module: str) -> Tensor:
        """Returns a module's weight; see `get`."""
        return self.get(f"{module}.weight")

    def modules(self, types: Collection[str]) -> list[str]:
        """Returns the modules of some types, e.g. `q_proj`, in layer order.

        Raises:
            ModelError: if the checkpoint has no module of one of the types.
        """
        weights = [name.removesuffix(".weight") for name in self.files if name.endswith(".weight")]
        found = [name for name in weights if module_type(name) in types]
        if missing := set(types) - {module_type(name) for name in found}:
            raise ModelError(f"{self.folder}: has no module named {', '.join(sorted(missing))}; change the targets")
        return in_layer_order(found)

    def require_finite(self, module: str) -> None:
        """Raises a ModelError if a module's weight has non-finite values."""
        if not self.tensor(module).isfinite().all():
            raise ModelError(
                f"{self.files[f'{module}.weight']}: {module} has non-finite values; download the file again"
            )

    def _holding(self, tensor: str) -> Any:
        """Returns the open file that has a tensor."""
        path = self.files.get(tensor)
        module = tensor.removesuffix(".weight")
        if path is None:
            raise ModelError(
                f"{self.folder}: has no weight for {module}; use a checkpoint and an adapter of the same model"
            )
        if path not in self._opened:
            self._opened[path] = open_safetensors(path)
        if tensor not in self._opened[path].keys():  # noqa: SIM118, a safe_open handle is not a mapping
            raise ModelError(f"{path}: lacks {module}, although {INDEX} lists it there; download it again")
        return self._opened[path]

    def _find_files(self) -> dict[str, Path]:
        single, index = self.folder / SINGLE, self.folder / INDEX
        if single.is_file():
            self._opened[single] = open_safetensors(single)
            return dict.fromkeys(self._opened[single].keys(), single)
        if index.is_file():
            weight_map = read_object(index).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise ModelError(f"{index}: has no weight_map; download it again")
            if wrong := [name for name in weight_map.values() if not _is_file_name(name)]:
                raise ModelError(
                    f"{index}: names {wrong[0]!r:.100} as a file of weights, but must name *.safetensors files in its "
                    "own folder; download it again"
                )
            return {tensor: self.folder / name for tensor, name in weight_map.items()}
        if any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt")) or any(self.folder.glob("*.pth")):
            raise ModelError(
                f"{self.folder}: has pickled weights, which are not loaded because a pickle can run code; convert them "
                "with AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
            )
        raise ModelError(f"{self.folder}: has neither {SINGLE} nor {INDEX}; use a checkpoint folder")


class WeightDelta:
    """The difference of two checkpoints, module by module."""

    def __init__(self, before: Path, after: Path, transposed: bool = False):
        """Opens the checkpoints.

        Args:
            before: folder of the checkpoint to subtract.
            after: folder of the checkpoint to subtract it from.
            transposed: whether the weights are stored as d_in x d_out.

        Raises:
            ModelError: if a folder has no safetensors checkpoint or a broken one.
        """
        self.before, self.after = Weights(before), Weights(after)
        self.transposed = transposed

    def shape(self, module: str) -> tuple[int, int]:
        """Returns (d_out, d_in) of a module without reading the weights.

        Raises:
            ModelError: if a checkpoint lacks the module or the shapes differ.
        """
        old, new = self.before.shape(module), self.after.shape(module)
        if old != new:
            raise ModelError(
                f"{self.before.folder} and {self.after.folder}: {module} is {by(old)} in the first and {by(new)} in "
                "the second; use two checkpoints of the same model"
            )
        d_out, d_in = new[::-1] if self.transposed else new
        return d_out, d_in

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """Returns a module's weights before and after, d_out x d_in, as views of the memory-mapped files."""
        old, new = self.before.tensor(module), self.after.tensor(module)
        return (old.T, new.T) if self.transposed else (old, new)

    def of(self, module: str) -> Tensor:
        """Returns after - before, d_out x d_in, in float32 or float64, on `device()`.

        Raises:
            ModelError: if a weight has non-finite values.
        """
        old, new = self.pair(module)
        dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
        difference = new.to(device(), dtype) - old.to(device(), dtype)
        if not difference.isfinite().all():
            self.require_finite(module)
        return difference

    def require_finite(self, module: str) -> None:
        """Raises a ModelError that names the file if a module has non-finite values in either checkpoint."""
        self.before.require_finite(module)
        self.after.require_finite(module)


def by(shape: tuple[int, ...]) -> str:
    """Returns a shape as text, e.g. `16 x 8`."""
    return " x ".join(map(str, shape))


def in_layer_order(names: Iterable[str]) -> list[str]:
    """Sorts module names so that layer 10 follows layer 9."""
    return sorted(names, key=lambda name: [_ranked(part) for part in name.split(".")])


def _ranked(part: str) -> tuple[bool, int, str]:
    number = whole_number(part)
    return number is not None, number or 0, part


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & set("/\\\0")
