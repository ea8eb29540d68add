"""Fully fine-tuned models: the nearest adapter is extracted, and weights are projected according to the formulas."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from safecomm.defenses import Adapter, extract_lora, profile, project_full_weights
from safecomm.defenses.weights import Weights
from safecomm.errors import DefenseError, ModelError

SIZES = {
    "vocab_size": 32,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
RANK = 8
Models = dict[str, Path]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """A base, an aligned and a telecom model; the telecom one is the aligned one with updates of a known rank."""
    folders = {}
    for name in ("base", "aligned"):
        folders[name] = tmp_path / name
        LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folders[name])
    telecom = LlamaForCausalLM.from_pretrained(folders["aligned"])
    with torch.no_grad():
        for name, weight in telecom.named_parameters():
            if name.endswith("_proj.weight"):
                d_out, d_in = weight.shape
                weight += 0.01 * torch.randn(d_out, RANK) @ torch.randn(RANK, d_in)
    folders["telecom"] = tmp_path / "telecom"
    telecom.save_pretrained(folders["telecom"], max_shard_size="60KB")
    return folders


def difference(models: Models, name: str) -> Tensor:
    return Weights(models["telecom"]).tensor(name).double() - Weights(models["aligned"]).tensor(name).double()


def test_extraction_recovers_an_update_of_its_rank(models: Models, tmp_path: Path) -> None:
    made = extract_lora(models["telecom"], models["aligned"], RANK)
    assert len(made.modules) == 14 and made.left_out == []
    assert all(f"{share:.2f}" == "1.00" for share in made.energy.values())
    made.save(tmp_path / "adapter")
    for name, (A, B, scaling) in Adapter.load(tmp_path / "adapter").modules.items():
        expected = difference(models, name)
        assert (scaling * B.double() @ A.double() - expected).norm() <= 1e-3 * expected.norm()


def test_energy_is_the_share_that_the_adapter_captures(models: Models) -> None:
    made = extract_lora(models["telecom"], models["aligned"], 3, targets=("q_proj", "down_proj"))
    assert sorted({name.rpartition(".")[2] for name in made.modules}) == ["down_proj", "q_proj"]
    for name, (A, B, _) in made.adapter.modules.items():
        expected = difference(models, name)
        lost = (B.double() @ A.double() - expected).square().sum() / expected.square().sum()
        assert made.energy[name] == pytest.approx(1 - float(lost), abs=1e-4)
        values = torch.linalg.svdvals(expected).square()
        assert made.energy[name] == pytest.approx(float(values[:3].sum() / values.sum()), abs=1e-3)


def test_tensors_outside_the_adapter_are_listed(models: Models) -> None:
    model = LlamaForCausalLM.from_pretrained(models["telecom"])
    with torch.no_grad():
        model.model.norm.weight += 1
    model.save_pretrained(models["telecom"])
    assert extract_lora(models["telecom"], models["aligned"], 2).left_out == ["model.norm.weight"]


def test_an_extracted_adapter_is_profiled_like_any_other(models: Models) -> None:
    made = extract_lora(models["telecom"], models["aligned"], RANK)
    rows = profile(models["base"], models["aligned"], made.adapter).modules
    assert len(rows) == 14 and all(-1 <= row.rho <= 1 and row.update_norm > 0 for row in rows)


def test_extraction_rejects_incomparable_checkpoints(models: Models, tmp_path: Path) -> None:
    with pytest.raises(DefenseError, match="at least 1"):
        extract_lora(models["telecom"], models["aligned"], 0)
    with pytest.raises(ModelError, match="no module named x_proj"):
        extract_lora(models["telecom"], models["aligned"], 2, targets=("x_proj",))
    with pytest.raises(ModelError, match="are identical in every"):
        extract_lora(models["aligned"], models["aligned"], 2)
    other = LlamaForCausalLM(LlamaConfig(**SIZES | {"hidden_size": 32}))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="two checkpoints of the same model"):
        extract_lora(models["telecom"], tmp_path / "other", 2)


def test_only_selected_weights_are_projected(models: Models, tmp_path: Path) -> None:
    out = tmp_path / "safer"
    made = project_full_weights(models["base"], models["aligned"], models["telecom"], out, lowest=5)
    assert len(made.selected) == 5 and len(made.modules) == 14
    safer, telecom, aligned = Weights(out), Weights(models["telecom"]), Weights(models["aligned"])
    assert {path.name for path in safer.files.values()} == {path.name for path in telecom.files.values()}
    for row in made.modules:
        V = aligned.tensor(row.name).double() - Weights(models["base"]).tensor(row.name).double()
        update = difference(models, row.name)
        projected = V @ V.T @ update / V.norm()
        assert row.rho == pytest.approx(float((projected * update).sum() / projected.norm() / update.norm()), abs=1e-5)
        expected = aligned.tensor(row.name).double() + projected
        if row.name in made.selected:
            assert (safer.tensor(row.name) - expected).norm() <= 1e-5 * expected.norm()
    carried = {f"{name}.weight" for name in made.selected}
    assert all(safer.get(name).equal(telecom.get(name)) for name in telecom.files if name not in carried)
    assert json.loads((out / "lineage.json").read_text())["modules"] == made.selected
    AutoModelForCausalLM.from_pretrained(out)


def test_full_weights_and_extracted_adapter_have_the_same_rho(models: Models, tmp_path: Path) -> None:
    adapter = extract_lora(models["telecom"], models["aligned"], RANK).adapter
    by_adapter = profile(models["base"], models["aligned"], adapter).modules
    made = project_full_weights(models["base"], models["aligned"], models["telecom"], tmp_path / "out", quantile=1)
    for ours, theirs in zip(made.modules, by_adapter, strict=True):
        assert (ours.name, ours.null) == (theirs.name, theirs.null)
        assert ours.rho == pytest.approx(theirs.rho, abs=1e-4)


def test_reference_model_can_differ_from_the_aligned_one(models: Models, tmp_path: Path) -> None:
    models["reference"] = tmp_path / "reference"
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(models["reference"])
    base, aligned, telecom, reference = (models[name] for name in ("base", "aligned", "telecom", "reference"))
    made = project_full_weights(
        base, aligned, telecom, tmp_path / "safer", reference=reference, lowest=1, targets=("q_proj",)
    )
    (name,) = made.selected
    V = Weights(aligned).tensor(name).double() - Weights(base).tensor(name).double()
    own = Weights(reference).tensor(name).double()
    expected = own + V @ V.T @ (Weights(telecom).tensor(name).double() - own) / V.norm()
    assert (Weights(tmp_path / "safer").tensor(name) - expected).norm() <= 1e-5 * expected.norm()


def test_nothing_is_written_without_an_alignment(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="are identical"):
        project_full_weights(models["base"], models["base"], models["telecom"], tmp_path / "out", lowest=1)
    with pytest.raises(DefenseError):
        project_full_weights(models["base"], models["aligned"], models["telecom"], tmp_path / "out", threshold=2)
    assert not (tmp_path / "out").exists()


@settings(max_examples=20, deadline=None)
@given(dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), seed=st.integers(0, 2**31))
def test_weights_keep_their_dtype(dtype: torch.dtype, seed: int) -> None:
    import tempfile

    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("base", "aligned", "model")]
        weights = [torch.randn(12, 20, generator=random).to(dtype) for _ in folders]
        for folder, weight in zip(folders, weights, strict=True):
            folder.mkdir()
            save_file({"layers.0.q_proj.weight": weight}, folder / "model.safetensors")
        project_full_weights(*folders, Path(scratch, "out"), quantile=1, targets=("q_proj",))
        safer = load_file(Path(scratch, "out", "model.safetensors"))["layers.0.q_proj.weight"]
    base, aligned, model = (weight.double() for weight in weights)
    V = aligned - base
    expected = aligned + V @ V.T @ (model - aligned) / V.norm()
    assert safer.dtype == dtype
    assert (safer.double() - expected).norm() <= 2 * torch.finfo(dtype).eps * expected.norm() + 1e-6
