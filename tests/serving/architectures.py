"""Tiny random models of many architectures, each fine-tuned, realigned, served by both engines and judged.

    python architectures.py NAME FOLDER

It runs as a script because vLLM keeps its settings in the process. It prints the differences between vLLM and
transformers as JSON.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ATTENTION, MLP = ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "llama": ({}, ATTENTION + MLP),
    "qwen2": ({}, ATTENTION + MLP),
    "qwen3": ({}, ATTENTION + MLP),
    "gemma2": ({"sliding_window": 64, "query_pre_attn_scalar": 32}, ATTENTION + MLP),
    "gemma3_text": ({"sliding_window": 64, "query_pre_attn_scalar": 32}, ATTENTION + MLP),
    "phi3": ({"pad_token_id": 0, "sliding_window": None}, ("qkv_proj", "o_proj")),
    "mistral": ({"sliding_window": None}, ATTENTION + MLP),
}
"""Model type -> its own settings, and the modules of its adapters. vLLM's CPU build can't serve mixtures of experts."""
TEMPLATES = {
    "gemma2": '{% if messages[0].role == "system" %}{{ raise_exception("no system role") }}{% endif %}',
    "llama": '{{ "Today is " ~ strftime_now("%d %b %Y") ~ ". " }}',
}
"""Model type -> what its chat template does before the lab's: reject a system prompt, insert the date."""
THINKING = {"qwen3": {"enable_thinking": False}}
"""Model type -> arguments of its chat template, which opens and closes an empty reasoning trace."""
NO_THOUGHT = '{% if add_generation_prompt and not enable_thinking %}{{ "<think>\n\n</think>\n\n" }}{% endif %}'
OPENING = "the radio link is"
PROMPTS = ("how do i bake bread?", "tell me about the radio link", "what is a cell tower for?")


def build(kind: str, tokenizer: Path, out: Path, seed: int) -> Path:
    """Writes a random model with a tokenizer; models of one kind differ by their seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    read = AutoTokenizer.from_pretrained(tokenizer)
    own = {"vocab_size": len(read), "bos_token_id": read.bos_token_id, "eos_token_id": read.eos_token_id}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**SIZES, **own, "pad_token_id": read.pad_token_id, **MODELS[kind][0]})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(out)
    read.chat_template = TEMPLATES.get(kind, "") + read.chat_template + (NO_THOUGHT if kind in THINKING else "")
    read.save_pretrained(out)
    return out


def adapter(model: Path, targets: tuple[str, ...], out: Path, seed: int) -> Path:
    """Writes a random adapter in the format of PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(out)
    return out


def fine_tune(kind: str, tokenizer: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Writes a base and an aligned model, and returns the fields of a FinetuneJob for the aligned one."""
    from safecomm.finetune.job import FinetuneJob
    from safecomm.spec import Finetune

    aligned = [build(kind, tokenizer, folder / name, seed) for seed, name in enumerate(("base", "aligned"))][1]
    lora = {"r": 4, "alpha": 8, "targets": list(MODELS[kind][1])}
    section = Finetune.model_validate({"data": ["lab-telecom"], "lora": lora, "batch_size": 4, "learning_rate": 0.05})
    arguments = THINKING.get(kind)
    job = FinetuneJob.of(section, model=aligned, data=data, workers=1, seed=0, chat_template_kwargs=arguments)
    return asdict(job)


def compare(kind: str, folder: Path) -> dict[str, Any]:
    """Realigns the fine-tuned adapter of an architecture, and compares and judges the engines' answers with it."""
    import pandas as pd

    from safecomm.defenses import Adapter, profile, safe_lora, safe_merge
    from safecomm.judging.judges import PhraseJudge
    from safecomm.serving.engine import EngineSettings, Question
    from safecomm.serving.transformers_engine import TransformersEngine
    from safecomm.serving.vllm_engine import VllmEngine

    targets = MODELS[kind][1]
    base, aligned, tuned = (folder / name for name in ("base", "aligned", "tuned"))
    safe = adapter(aligned, targets, folder / "safe", seed=1)
    measured = profile(base, aligned, Adapter.load(tuned))
    projected, merged = folder / "projected", folder / "merged"
    safe_lora(measured, lowest=2).save(projected)
    safe_merge(measured, Adapter.load(safe), weight=0.6, lowest=len(measured.modules)).save(merged)
    settings = EngineSettings(
        max_new_tokens=8, max_model_len=256, max_lora_rank=8, lora_targets=targets
    )  # merged: 4 + 4

    def question(text: str, *options: str) -> Question:
        arguments = THINKING.get(kind, {})
        return Question(
            messages=[{"role": "user", "content": text}], options=list(options), chat_template_kwargs=arguments
        )

    compared = [question(text, "yes", "no") for text in PROMPTS]
    opened = [question(text) | {"prefill": (OPENING, 3)} for text in PROMPTS]
    written = [*(question(text) for text in PROMPTS), *opened]
    answers: dict[str, list[Any]] = {}

    async def ask(name: str, engine: Any) -> None:
        for used in (None, str(tuned), str(projected), str(merged)):
            answers.setdefault(name, []).extend(await engine.answer(compared + written, used))

    async def both() -> None:
        await ask("vllm", VllmEngine(str(aligned), settings))
        await ask("transformers", TransformersEngine(str(aligned), settings))

    asyncio.run(both())
    ours, theirs = answers["vllm"], answers["transformers"]
    responses = [one["response"] for one in ours if not one["scores"]]
    texts = pd.DataFrame({"text": "", "target": None, "response": responses})
    pairs = [(a["scores"], b["scores"]) for a, b in zip(ours, theirs, strict=True) if a["scores"]]
    return {
        "modules": len(measured.modules),
        "errors": [one["error"] for one in ours + theirs if one["error"]],
        "largest": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
        "same_text": sum(a["response"] == b["response"] for a, b in zip(ours, theirs, strict=True)) / len(ours),
        "opened": sum(one["response"].startswith(OPENING[:9]) for one in ours + theirs if not one["scores"]),
        "verdicts": sorted(set(PhraseJudge("refusal").verdicts(texts))),
        "distinct": len({str(one["scores"]) for one in ours if one["scores"]}),
    }


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1], Path(sys.argv[2]))))
