"""Whatever a model's or adapter's folder holds, it is used as it is meant or refused with a ModelError."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from safecomm.defenses import Adapter, extract_lora, profile, project_full_weights, safe_merge
from safecomm.defenses.weights import Weights
from safecomm.errors import DefenseError, ModelError
from safecomm.plan.shapes import ModelShape, find_config
from safecomm.serving.models import ModelFolder, model_folder
from safecomm.storage.store import Store

Folders = Callable[..., Path]
MODULE = "model.layers.0.self_attn.q_proj"
CATASTROPHIC = "(a|a?)+" * 12 + "(([a-z_.0-9]+)+)+!"
BAD_CONFIGS = [
    {"r": 0},
    {"r": True},
    {"r": "4"},
    {"lora_alpha": float("nan")},
    {"lora_alpha": float("inf")},
    {"lora_alpha": 10**400},
    {"lora_alpha": [8]},
    {"rank_pattern": ["q_proj"]},
    {"rank_pattern": {"q_proj": None}},
    {"alpha_pattern": "q_proj"},
    {"alpha_pattern": {"(": 8}},
    {"alpha_pattern": {"q_proj": {}}},
    {"alpha_pattern": {CATASTROPHIC: 8}},
    {"peft_type": ["LORA"]},
]


@pytest.mark.parametrize("settings", BAD_CONFIGS, ids=str)
def test_an_adapter_with_a_bad_configuration_is_refused_in_time(
    adapter_folder: Folders, settings: dict[str, Any]
) -> None:
    started = time.monotonic()
    with pytest.raises(ModelError, match="adapter"):
        Adapter.load(adapter_folder(**settings))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("content", [b"\xe9", b"[1]", b"7", b"", b'{"r": ' * 9000, b'{"r": ' + b"9" * 5000 + b"}"])
def test_a_configuration_that_is_no_object_is_refused(adapter_folder: Folders, content: bytes) -> None:
    folder = adapter_folder()
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    ("A", "said"),
    [
        (torch.zeros(4, 16, dtype=torch.int32), "stored as I32"),
        (torch.zeros(4, 16).to(torch.float8_e4m3fn), "stored as F8_E4M3"),
        (torch.zeros(4), "not a LoRA factor"),
        (torch.zeros(2, 4, 16), "not a LoRA factor"),
        (torch.zeros(0, 16), "empty"),
        (torch.zeros(4, 0), "empty"),
    ],
)
def test_factors_that_are_no_matrices_of_floats_are_refused(
    adapter_folder: Folders, A: torch.Tensor, said: str
) -> None:
    folder = adapter_folder(tensors={f"base_model.model.{MODULE}.lora_A.weight": A})
    with pytest.raises(ModelError, match=said):
        Adapter.load(folder)


def test_truncated_and_altered_weights_are_read_or_refused(adapter_folder: Folders) -> None:
    rng, folder, refused = random.Random(0), adapter_folder(), 0
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for _ in range(150):
        at, near = rng.randrange(len(whole)), rng.randrange(300)
        file.write_bytes(rng.choice([whole[:at], whole[:near] + rng.randbytes(3) + whole[near + 3 :]]))
        try:
            Adapter.load(folder).check()
        except ModelError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "a/m.safetensors", "m.bin", "", 5, None])
def test_an_index_names_files_of_weights_in_its_own_folder_only(checkpoint: Folders, name: object) -> None:
    folder = checkpoint("model")
    (folder / "model.safetensors").rename(folder / "m.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {f"{MODULE}.weight": name}}))
    with pytest.raises(ModelError, match=r"index\.json: names"):
        Weights(folder)


@pytest.mark.parametrize("weight", [torch.zeros(3), torch.zeros(()), torch.zeros(2, 2, 2), torch.zeros(0, 4)])
def test_weights_that_are_no_matrices_are_refused(
    checkpoint: Folders, adapter_folder: Folders, weight: torch.Tensor
) -> None:
    base, aligned = (checkpoint(name, {MODULE: weight}) for name in ("base", "aligned"))
    for use in (
        lambda: profile(base, aligned, Adapter.load(adapter_folder())),
        lambda: extract_lora(aligned, base, 2, targets=["q_proj"]),
        lambda: project_full_weights(base, aligned, base, base.parent / "out", targets=["q_proj"], threshold=0.5),
    ):
        with pytest.raises(ModelError, match="must be a matrix"):
            use()
    assert not (base.parent / "out").exists()


@pytest.mark.parametrize("targets", [(), ("",), ("q_proj", "")])
def test_no_targets_are_refused(checkpoint: Folders, targets: tuple[str, ...]) -> None:
    base, aligned = checkpoint("base"), checkpoint("aligned")
    with pytest.raises(DefenseError, match="targets: name at least one"):
        extract_lora(aligned, base, 2, targets=targets)
    with pytest.raises(DefenseError, match="targets: name at least one"):
        project_full_weights(base, aligned, base, base.parent / "out", targets=targets, threshold=0.5)


def test_other_tensors_of_other_types_count_as_changed(checkpoint: Folders) -> None:
    base, model = checkpoint("base"), checkpoint("model")
    for folder, dtype in ((base, torch.float32), (model, torch.float8_e4m3fn)):
        weights = {f"{MODULE}.weight": torch.randn(8, 8), "norm.weight": torch.ones(8).to(dtype)}
        save_file(weights, folder / "model.safetensors")
    assert extract_lora(model, base, 2, targets=["q_proj"]).left_out == ["norm.weight"]


def test_only_what_describes_a_model_is_copied_with_full_weights(checkpoint: Folders, tmp_path: Path) -> None:
    base, aligned, model = checkpoint("base"), checkpoint("aligned"), checkpoint("model")
    for name in ("config.json", "merges.txt", "README.md", "LICENSE", ".env", ".git-credentials", "id_rsa", "run.py"):
        (model / name).write_text("{}")
    (model / "nested").mkdir()
    project_full_weights(base, aligned, model, tmp_path / "out", targets=["q_proj", "v_proj"], threshold=0.5)
    copied = {path.name for path in (tmp_path / "out").iterdir()}
    assert copied == {"config.json", "merges.txt", "README.md", "LICENSE", "model.safetensors", "lineage.json"}
    (model / "notes.txt").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match=r"notes\.txt: is a link to a file outside"):
        project_full_weights(base, aligned, model, tmp_path / "two", targets=["q_proj"], threshold=0.5)
    assert not (tmp_path / "two").exists()


def test_merging_refuses_negative_scalings_and_an_adapter_with_itself(
    checkpoint: Folders, adapter_folder: Folders
) -> None:
    ours = Adapter.load(adapter_folder("ours", lora_alpha=-8))
    found = profile(checkpoint("base"), checkpoint("aligned"), ours)
    theirs = Adapter.load(adapter_folder("safe"))
    for combine in ("linear", "ties"):
        density = {"density": 0.5} if combine == "ties" else {}
        with pytest.raises(ModelError, match="alpha is negative; use cat or svd"):
            safe_merge(found, theirs, weight=0.5, combine=combine, **density)
    assert safe_merge(found, theirs, weight=0.5).modules
    with pytest.raises(ModelError, match="is the same adapter"):
        safe_merge(found, ours, weight=0.5)


SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 8, "vocab_size": 9}
NASTY: list[Any] = [None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "8192", "", [], [1], {}, {"a": 1}]


def test_configurations_of_odd_values_are_read_or_refused() -> None:
    rng = random.Random(0)
    whole = {"model_type": "llama", "head_dim": 16, "num_key_value_heads": 2, **SIZES}
    refused = 0
    for _ in range(500):
        try:
            shape = ModelShape.of(whole | {key: rng.choice(NASTY) for key in rng.sample(list(whole), 2)})
        except ModelError as error:
            assert len(str(error)) < 300
            refused += 1
        else:
            assert 0 < shape.parameters < 10**15
    assert refused > 300


@pytest.mark.parametrize("context", ["8192", [], 0, -5, True, 1e4])
@pytest.mark.parametrize("nested", [True, False])
def test_a_context_length_that_is_no_number_is_refused(tmp_path: Path, context: object, nested: bool) -> None:
    config = {"max_position_embeddings": context}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config} if nested else config))
    with pytest.raises(ModelError, match=r"config\.json: max_position_embeddings is"):
        ModelFolder(tmp_path, "").check_context(1024, "evaluate.max_model_len")


@pytest.mark.parametrize("content", [b'{"a": "\xe9"}', b"[]", b"null", b"{" * 5000, b""])
def test_a_model_with_a_configuration_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"config\.json"):
        model_folder(str(tmp_path), Store(tmp_path / "store"))
    with pytest.raises(ModelError, match=r"config\.json"):
        find_config(str(tmp_path))
