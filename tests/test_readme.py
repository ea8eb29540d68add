"""The README's commands, paths and examples work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from safecomm.spec import Sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([\w-]+)|`make ([\w-]+)`", README, re.M))))
def test_make_targets_exist(target: tuple[str, str]) -> None:
    assert re.search(rf"^{''.join(target)}:", MAKEFILE, re.M)


def test_ci_and_the_readme_run_the_same_tests() -> None:
    (targets,) = re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    assert {"check", "check-install", "test", "test-faults", "test-rebuild"} == set(targets.split())
    assert "make test" in README


@pytest.mark.parametrize("verb", sorted(set(re.findall(r"safecomm ((?:data |lab |realign )?[a-z-]+)(?= |\n)", README))))
def test_commands_exist_and_have_help(verb: str) -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "safecomm", *verb.split(), "--help"], capture_output=True, text=True
    )
    assert help_text.returncode == 0, help_text.stderr
    assert "Usage" in help_text.stdout


def test_the_example_sweep_is_valid() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    sweep = Sweep.model_validate(yaml.safe_load(example))
    assert {"safe_instruct", "safe_lora", "safe_merge", "stacked"} == set(sweep.arms)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)|^\| `([^`]+)`", README, re.M))))
def test_paths_exist(path: tuple[str, str]) -> None:
    for place in re.split(r"`, `", "".join(path)):
        assert (ROOT / place).exists(), place


def test_python_example_runs_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from safecomm.defenses import Adapter
    from safecomm.defenses.adapter import Factors

    monkeypatch.chdir(tmp_path)
    for name in ("Llama-3.1-8B", "Llama-3.1-8B-Instruct"):
        sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
        LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(name)
    modules = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(2) for kind in "qv"]
    for name in ("telecom-lora", "safety-lora"):
        update = {module: Factors(torch.randn(2, 16), torch.randn(16, 2), 2.0) for module in modules}
        Adapter(update, {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"]}, name).save(tmp_path / name)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(example, {})
    assert Adapter.load("merged").modules.keys() == set(modules)
    assert len(list(tmp_path.glob("projected-*/lineage.json"))) == len(modules) + 1
