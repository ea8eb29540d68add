"""`safecomm realign`, `profile` and `extract-lora` write the defenses' output, and report mistakes in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from safecomm.cli import main
from safecomm.defenses import Adapter
from safecomm.serving.models import model_folder
from safecomm.storage.store import Store

GOLDEN = Path(__file__).parents[2] / ".." / "shared" / "golden" / "llama-all"
SIZES = {
    "vocab_size": 32,
    "hidden_size": 128,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # heads of 32, the smallest that vLLM has a CPU kernel for
Safecomm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def safecomm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Safecomm:
    """Types a command; returns its exit code, output and errors."""

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["safecomm", *map(str, words)])
        capsys.readouterr()  # what making the models printed
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Base, aligned and adapter as the options that name them."""
    torch.manual_seed(0)
    for name in ("base", "aligned"):
        LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(tmp_path / name)
    _save_adapter(tmp_path, "adapter", 4)
    _save_adapter(tmp_path, "safe", 2)
    return [f"--base={tmp_path / 'base'}", f"--aligned={tmp_path / 'aligned'}", f"--adapter={tmp_path / 'adapter'}"]


def _save_adapter(folder: Path, name: str, rank: int, **settings: Any) -> None:
    config = LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], **settings)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(folder / "aligned"), config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.normal_()
    model.save_pretrained(folder / name)


@pytest.mark.parametrize(
    ("words", "settings", "acted"),
    [
        (["safe-lora", "--lowest=2"], {"lowest": 2}, 2),
        (["safe-lora", "--quantile=q_proj=1,v_proj=0.5"], {"quantile": {"q_proj": 1, "v_proj": 0.5}}, 3),
        (["safe-lora", "--above-null=1", "--projection=subspace", "--energy=0.5"], {"energy": 0.5}, 4),
        (["safe-merge", "--weight=0.7", "--safe-adapter={}/safe"], {"combine": "cat"}, 4),
        (["safe-merge", "--weight=0.7", "--safe-adapter={}/safe", "--combine=svd", "--lowest=1"], {"weight": 0.7}, 1),
        (["drop", "--threshold=v_proj=1"], {"threshold": {"v_proj": 1}}, 2),
        (["resta-instruct", "--alpha=0.5", "--rank=2"], {"alpha": 0.5, "rank": 2}, 4),
    ],
)
def test_every_defense_writes_an_adapter_with_its_lineage(
    safecomm: Safecomm, models: list[str], tmp_path: Path, words: list[str], settings: dict[str, Any], acted: int
) -> None:
    out = tmp_path / "out"
    code, told, _ = safecomm("realign", *(word.format(tmp_path) for word in words), *models, "--out", out)
    assert code == 0 and f"changed {acted} (" in told and str(out) in told.replace("\n", "")
    lineage = json.loads((out / "lineage.json").read_text())
    assert len(lineage["modules"]) == acted and lineage["settings"] | settings == lineage["settings"]
    assert lineage["inputs"]["finetuned"] == Adapter.load(tmp_path / "adapter").digest()
    assert lineage["adapter"] == Adapter.load(out).digest()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "aligned"), str(out))


def test_safe_delta_reads_the_safety_data_with_the_aligned_model(safecomm: Safecomm, tmp_path: Path) -> None:
    lab = model_folder("lab://aligned", Store(tmp_path / "store"))
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(lab), config).save_pretrained(tmp_path / "adapter")
    (tmp_path / "own.csv").write_text("question,answer\nHow do I jam a cell?,I can't help with that.\n")
    words = ["realign", "safe-delta", "--budget=0.5", f"--adapter={tmp_path / 'adapter'}"]
    own = f"own={tmp_path / 'own.csv'}:question"
    for name, safety_data in {"set": "lab-safety", "file": f"{own}:answer"}.items():
        code, told, _ = safecomm(
            *words, "--aligned=lab://aligned", "--safety-data", safety_data, "--out", tmp_path / name
        )
        assert code == 0 and "safe_delta changed " in told
    one, other = (Adapter.load(tmp_path / name).digest() for name in ("set", "file"))
    assert one != other, "the data decides what is kept"
    code, _, said = safecomm(*words, "--aligned=lab://aligned", "--safety-data", own, "--out", tmp_path / "none")
    assert code == 2 and "name two columns" in said
    shutil.copytree(lab, tmp_path / "mute", ignore=shutil.ignore_patterns("chat_template*", "tokenizer*"))
    refused = [*words, f"--aligned={tmp_path / 'mute'}", "--safety-data=lab-safety", f"--out={tmp_path / 'none'}"]
    code, _, said = safecomm(*refused)
    assert code not in (0, 70) and "--aligned" in said and not (tmp_path / "none").exists()


def test_scale_needs_only_the_adapter(safecomm: Safecomm, models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert safecomm("realign", "scale", models[2], "--factor=0.5", "--out", out)[0] == 0
    before, after = Adapter.load(tmp_path / "adapter").modules, Adapter.load(out).modules
    assert all(after[name].scaling == 0.5 * before[name].scaling for name in before)


def test_full_models_are_extracted_or_projected(safecomm: Safecomm, models: list[str], tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tmp_path / "aligned")
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "telecom")
    telecom, aligned = tmp_path / "telecom", tmp_path / "aligned"
    code, told, _ = safecomm(
        "extract-lora", "--model", telecom, "--reference", aligned, "--rank=128", "--out", tmp_path / "extracted"
    )
    assert code == 0 and told.count("1.00") == 14 and "model.embed_tokens.weight" in told
    code, told, _ = safecomm(
        "realign", "full-weights", *models[:2], "--model", telecom, "--lowest=3", "--out", tmp_path / "projected"
    )
    assert code == 0 and "Projected 3 (" in told and "of 14 modules" in told
    AutoModelForCausalLM.from_pretrained(tmp_path / "projected")


def test_profile_prints_a_table_or_json(safecomm: Safecomm, models: list[str]) -> None:
    _, table, _ = safecomm("profile", *models)
    rows = json.loads(safecomm("profile", *models, "--json")[1])["modules"]
    assert len(rows) == 4
    for row in rows:
        (line,) = [line for line in table.splitlines() if line.startswith(row["name"])]
        assert f"{row['rho']:.5f}" in line


def _truncate(folder: Path) -> None:
    file = folder / "aligned" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def _poison(folder: Path) -> None:
    file = folder / "aligned" / "model.safetensors"
    tensors = {key: weight.clone() for key, weight in load_file(file).items()}
    tensors["model.layers.1.self_attn.v_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file)


def _other_model(folder: Path) -> None:
    for name in ("base", "aligned"):
        LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 4})).save_pretrained(folder / name)


def _other_base(folder: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 4})).save_pretrained(folder / "base")


def _lose_a_shard(folder: Path) -> None:
    LlamaForCausalLM.from_pretrained(folder / "base").save_pretrained(folder / "sharded", max_shard_size="10KB")
    places = json.loads((folder / "sharded" / "model.safetensors.index.json").read_text())["weight_map"]
    (folder / "sharded" / places["model.layers.1.self_attn.v_proj.weight"]).unlink()
    shutil.rmtree(folder / "base")
    (folder / "sharded").rename(folder / "base")


def _pickle(folder: Path) -> None:
    (folder / "base" / "model.safetensors").rename(folder / "base" / "pytorch_model.bin")


def _same(folder: Path) -> None:
    shutil.copy(folder / "aligned" / "model.safetensors", folder / "base" / "model.safetensors")


def _config(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))

    return change


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [
        (_other_base, [], "in the first and"),
        (_other_model, [], "is for another model"),
        (_lose_a_shard, [], ".safetensors: is missing"),
        (_truncate, [], "aligned/model.safetensors: is truncated"),
        (_poison, [], "model.layers.1.self_attn.v_proj has non-finite values"),
        (_pickle, [], "convert"),
        (_same, [], "model.layers.1.self_attn.q_proj, model.layers.1.self_attn.v_proj"),
        (_config(use_dora=True), [], "DoRA"),
        (_config(lora_bias=True), [], "lora_bias"),
        (_config(modules_to_save=["lm_head"]), [], "modules_to_save"),
        (None, ["--threshold=1.5"], "between -1 and 1"),
        (None, ["--threshold=low"], "--threshold low: must be a number"),
        (None, ["--lowest=1", "--quantile=0.5"], "exactly one of"),
        (None, [], "exactly one of"),
        (None, ["--threshold=k_proj=0.5"], "has no k_proj"),
        (None, ["--lowest=1", "--projection=exact"], "'gram' or 'subspace'"),
    ],
)
def test_bad_input_prints_one_line_and_writes_nothing(
    safecomm: Safecomm,
    models: list[str],
    tmp_path: Path,
    spoil: Callable[[Path], None] | None,
    words: list[str],
    said: str,
) -> None:
    if spoil:
        spoil(tmp_path)
        words = ["--lowest=1"]
    code, _, told = safecomm("realign", "safe-lora", *models, *words, "--out", tmp_path / "out")
    assert (
        code == (1 if spoil and spoil is not _pickle else 2)
        and said in told
        and told.count("\n") == 1
        and told.startswith("safecomm: ")
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_existing_folders_are_not_changed(safecomm: Safecomm, models: list[str], tmp_path: Path) -> None:
    before = sorted(path.name for path in (tmp_path / "safe").iterdir())
    code, _, told = safecomm("realign", "safe-lora", *models, "--lowest=1", "--out", tmp_path / "safe")
    assert code == 2 and "already exists" in told
    assert sorted(path.name for path in (tmp_path / "safe").iterdir()) == before


def test_defenses_need_neither_ray_nor_vllm() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('ray', 'vllm', 'deepspeed', 'wandb')));"
        "import safecomm.defenses, safecomm.cli.defenses"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def projected(safecomm: Safecomm, tmp_path: Path) -> Path:
    """The golden adapter, projected with the settings of one of the reference outputs."""
    if not GOLDEN.is_dir():
        pytest.skip("the reference outputs are not beside this checkout (../shared/golden)")
    options = ["--base", GOLDEN / "base", "--aligned", GOLDEN / "aligned", "--adapter", GOLDEN / "finetuned"]
    code, _, told = safecomm(
        "realign", "safe-lora", *options, "--threshold", _reference()["threshold"], "--out", tmp_path / "projected"
    )
    assert code == 0, told
    return tmp_path / "projected"


def _reference() -> dict[str, Any]:
    outputs: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())["safelora"]
    return next(output for output in outputs if output["select"] == "threshold" and output["projected"])


def test_the_reference_output_is_reproduced(projected: Path) -> None:
    expected, reference = json.loads((GOLDEN / "expected.json").read_text()), _reference()
    assert set(json.loads((projected / "lineage.json").read_text())["modules"]) == set(reference["projected"])
    theirs = load_file(GOLDEN / "expected" / reference["file"])
    for name, (A, B, scaling) in Adapter.load(projected).modules.items():
        (key,) = (key for key in theirs if f"{name}.lora_A" in key)
        update = theirs[key.replace("lora_A", "lora_B")].double() @ theirs[key].double()
        update *= expected["lora_alpha"] / expected["r"]
        assert (scaling * B.double() @ A.double() - update).norm() <= 1e-5 * update.norm()


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_and_peft_generate_the_same(
    safecomm: Safecomm, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    out, prompt = tmp_path / "out", [1, 5, 9, 13]
    assert safecomm("realign", "safe-lora", *models, "--lowest=2", "--out", out)[0] == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "aligned")
    bare = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None)
    by_peft = PeftModel.from_pretrained(model, str(out)).generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None
    )
    assert not bare.equal(by_peft)
    aligned = str(tmp_path / "aligned")
    lengths = {"max_model_len": 32, "dtype": "float32"}  # in bfloat16 near ties may fall the other way
    engine = LLM(aligned, skip_tokenizer_init=True, enable_lora=True, enforce_eager=True, **lengths)
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)
    (answer,) = engine.generate(
        {"prompt_token_ids": prompt}, greedy, lora_request=LoRARequest("projected", 1, str(out)), use_tqdm=False
    )
    engine.llm_engine.engine_core.shutdown()
    assert list(answer.outputs[0].token_ids) == by_peft[0, len(prompt) :].tolist()
