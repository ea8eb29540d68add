"""Weights of a checkpoint folder, read one module at a time.

Only safetensors are read: `model.safetensors`, or the shards that `model.safetensors.index.json` names. Tensors are
views of the mapped files, so a 70B checkpoint costs the memory of the module at hand.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safecomm.defenses.hardware import device
from safecomm.errors import ModelError
from safecomm.statistics.selection import module_type

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ModelError: where the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: is not valid JSON; download or write it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds no JSON object; download or write it again")
    return value


def open_safetensors(path: Path) -> Any:
    """Opens a safetensors file; its `get_tensor` maps the bytes instead of copying them.

    Raises:
        ModelError: where the file is missing, truncated or no safetensors file.
    """
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise ModelError(f"{path}: is missing; download the folder again") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: is truncated or no safetensors file ({error}); download it again") from error


class Weights:
    """The weights of one checkpoint folder, by module name."""

    def __init__(self, folder: Path):
        """Reads which file holds which tensor.

        Raises:
            ModelError: where the folder holds no safetensors checkpoint, or a broken one.
        """
        self.folder = folder
        self._opened: dict[Path, Any] = {}
        self.files = self._find_files()
        """The file of each tensor."""

    def shape(self, module: str) -> tuple[int, ...]:
        """Returns a module's weight shape, without reading the weight.

        Raises:
            ModelError: where the checkpoint lacks the module or holds it in a quantized form.
        """
        header = self._holding(f"{module}.weight").get_slice(f"{module}.weight")
        if header.get_dtype() not in DTYPES:
            raise ModelError(
                f"{self.folder}: {module} is stored as {header.get_dtype()}; give the checkpoint in bf16, fp16 "
                "or fp32, not quantized"
            )
        return tuple(header.get_shape())

    def get(self, tensor: str) -> Tensor:
        """Returns a tensor in the checkpoint's dtype, as a view of the mapped file.

        Raises:
            ModelError: where the checkpoint lacks it.
        """
        value: Tensor = self._holding(tensor).get_tensor(tensor)
        return value

    def tensor(self, module: str) -> Tensor:
        """Returns a module's weight, as `get` does."""
        return self.get(f"{module}.weight")

    def modules(self, types: Collection[str]) -> list[str]:
        """Returns the modules whose name ends in one of some types, e.g. `q_proj`, in the order of the layers.

        Raises:
            ModelError: where the checkpoint has none of a type.
        """
        weights = [name.removesuffix(".weight") for name in self.files if name.endswith(".weight")]
        found = [name for name in weights if module_type(name) in types]
        if missing := set(types) - {module_type(name) for name in found}:
            raise ModelError(f"{self.folder}: has no module named {', '.join(sorted(missing))}; give other targets")
        return in_layer_order(found)

    def require_finite(self, module: str) -> None:
        """Raises a ModelError where a module's weight has infinite or undefined values."""
        if not self.tensor(module).isfinite().all():
            raise ModelError(
                f"{self.files[f'{module}.weight']}: {module} has values that are not finite; download the file again"
            )

    def _holding(self, tensor: str) -> Any:
        """Returns the opened file that holds a tensor."""
        path = self.files.get(tensor)
        module = tensor.removesuffix(".weight")
        if path is None:
            raise ModelError(
                f"{self.folder}: has no weight for {module}; the adapter or the checkpoint is of another model"
            )
        if path not in self._opened:
            self._opened[path] = open_safetensors(path)
        if tensor not in self._opened[path].keys():  # noqa: SIM118, a safe_open handle is no mapping
            raise ModelError(f"{path}: lacks {module}, which {INDEX} places there; download it again")
        return self._opened[path]

    def _find_files(self) -> dict[str, Path]:
        single, index = self.folder / SINGLE, self.folder / INDEX
        if single.is_file():
            self._opened[single] = open_safetensors(single)
            return dict.fromkeys(self._opened[single].keys(), single)
        if index.is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
                raise ModelError(f"{index}: has no weight_map; download it again")
            return {tensor: self.folder / name for tensor, name in places.items()}
        if any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt")) or any(self.folder.glob("*.pth")):
            raise ModelError(
                f"{self.folder}: holds pickled weights, which are not read since a pickle may run code; convert them "
                "with AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
            )
        raise ModelError(f"{self.folder}: holds neither {SINGLE} nor {INDEX}; give a checkpoint folder")


class WeightDelta:
    """One checkpoint minus another, module by module."""

    def __init__(self, before: Path, after: Path, transposed: bool = False):
        """Opens the checkpoints.

        Args:
            before: the folder that is taken away.
            after: the folder that it is taken from.
            transposed: whether the weights are stored as d_in x d_out.

        Raises:
            ModelError: where a folder holds no safetensors checkpoint, or a broken one.
        """
        self.before, self.after = Weights(before), Weights(after)
        self.transposed = transposed

    def shape(self, module: str) -> tuple[int, int]:
        """Returns a module's d_out x d_in, without reading the weights.

        Raises:
            ModelError: where a checkpoint lacks the module, or they have it in different shapes.
        """
        old, new = self.before.shape(module), self.after.shape(module)
        if old != new:
            raise ModelError(
                f"{self.before.folder} and {self.after.folder}: {module} is {by(old)} in the first and {by(new)} in "
                "the second; give two checkpoints of one model"
            )
        d_out, d_in = new[::-1] if self.transposed else new
        return d_out, d_in

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """Returns a module's weights before and after, d_out x d_in, as views of the mapped files."""
        old, new = self.before.tensor(module), self.after.tensor(module)
        return (old.T, new.T) if self.transposed else (old, new)

    def of(self, module: str) -> Tensor:
        """Returns after - before, d_out x d_in, in float32 or float64, on `device()`.

        Raises:
            ModelError: where a weight is not finite.
        """
        old, new = self.pair(module)
        dtype = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
        difference = new.to(device(), dtype) - old.to(device(), dtype)
        if not difference.isfinite().all():
            self.require_finite(module)
        return difference

    def require_finite(self, module: str) -> None:
        """Raises a ModelError that names the file where a module has infinite or undefined values."""
        self.before.require_finite(module)
        self.after.require_finite(module)


def by(shape: tuple[int, ...]) -> str:
    """Returns a shape in words, e.g. `16 x 8`."""
    return " x ".join(map(str, shape))


def in_layer_order(names: Iterable[str]) -> list[str]:
    """Returns module names with layer 10 behind layer 9."""
    return sorted(
        names, key=lambda name: [(part.isdigit(), int(part) if part.isdigit() else part) for part in name.split(".")]
    )
