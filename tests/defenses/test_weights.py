"""Checkpoints are read module by module, sharded or not, and broken files are named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safecomm.defenses.weights import Weights
from safecomm.errors import ModelError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    folder.mkdir()
    places = {Q: "model-00001-of-00002.safetensors", V: "model-00002-of-00002.safetensors"}
    for number, (module, file) in enumerate(places.items()):
        save_file({f"{module}.weight": torch.full((4, 4), float(number))}, folder / file)
    index = {"metadata": {}, "weight_map": {f"{module}.weight": file for module, file in places.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_reads_single_files(checkpoint: Checkpoints) -> None:
    weight = torch.randn(3, 5).bfloat16()
    weights = Weights(checkpoint("single", {Q: weight}))
    assert weights.shape(Q) == (3, 5) and weights.tensor(Q).equal(weight)


def test_reads_shards(sharded: Path) -> None:
    weights = Weights(sharded)
    assert weights.tensor(Q).eq(0).all() and weights.tensor(V).eq(1).all()


def test_reads_only_the_requested_shards(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    assert Weights(sharded).tensor(Q).eq(0).all()


def test_names_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors: is missing"):
        Weights(sharded).tensor(V)


def test_names_a_shard_without_its_module(sharded: Path) -> None:
    save_file({"other": torch.zeros(1)}, sharded / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelError, match=rf"model-00002-of-00002\.safetensors: lacks {V}"):
        Weights(sharded).tensor(V)


def test_rejects_an_index_without_weight_map(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="has no weight_map"):
        Weights(sharded)


def test_names_a_truncated_file(checkpoint: Checkpoints) -> None:
    file = checkpoint("truncated") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors: is truncated") as caught:
        Weights(file.parent)
    assert "\n" not in str(caught.value)


def test_names_a_missing_module(checkpoint: Checkpoints) -> None:
    with pytest.raises(ModelError, match=rf"single: has no weight for {V}"):
        Weights(checkpoint("single", {Q: torch.zeros(2, 2)})).shape(V)


def test_rejects_pickled_weights_with_a_conversion_hint(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pickled weights.*save_pretrained"):
        Weights(tmp_path)


def test_rejects_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing: has neither model\.safetensors nor"):
        Weights(tmp_path / "missing")


def test_rejects_quantized_weights(checkpoint: Checkpoints) -> None:
    with pytest.raises(ModelError, match=r"stored as I8.*unquantized checkpoint"):
        Weights(checkpoint("quantized", {Q: torch.zeros(2, 2, dtype=torch.int8)})).shape(Q)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_names_a_module_with_non_finite_values(checkpoint: Checkpoints, value: float) -> None:
    weights = Weights(checkpoint("broken", {Q: torch.tensor([[1.0, value]]), V: torch.ones(1, 1)}))
    weights.require_finite(V)
    with pytest.raises(ModelError, match=rf"model\.safetensors: {Q} has non-finite values"):
        weights.require_finite(Q)
