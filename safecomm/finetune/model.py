"""Loads a rank's weights: its shard under ZeRO-3, otherwise the full model, optionally in 4 bits."""

from importlib.util import find_spec
from typing import Any

from safecomm.errors import TrainingError
from safecomm.finetune.job import FinetuneJob


def load_model(job: FinetuneJob, *, bf16: bool, on_gpu: bool) -> Any:
    """Returns the frozen model.

    Under ZeRO-3 no rank ever holds the full model: transformers reads the configuration from the existing training
    arguments and shards each weight on creation; only rank 0 maps the files and broadcasts one module at a time. So the
    training arguments must be created first and kept alive. Under other stages a rank reads the weights straight into
    its GPU; otherwise each rank of a node would hold the full model in the node's memory first.

    Raises:
        TrainingError: if the requirements for 4-bit weights are missing, or packing is enabled for a model that can't
            separate packed examples.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32}
    if job.quantize != "none":
        options |= _quantized(job.quantize, usable=bf16 and on_gpu)
    if on_gpu and job.zero != 3:
        options["device_map"] = {"": torch.cuda.current_device()}
    model = AutoModelForCausalLM.from_pretrained(job.model, **options)
    # Incompatible models build their own masks or carry state across examples.
    if job.packing and not model.is_backend_compatible():
        raise TrainingError(
            f"finetune.packing: models of type {model.config.model_type} would let packed examples attend to each "
            "other; set finetune.packing: false"
        )
    return model


def _quantized(kind: str, *, usable: bool) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    if not usable:
        raise TrainingError(
            f"finetune.quantize: {kind} needs GPUs with bf16 support, and this worker has none; set "
            "finetune.quantize: none"
        )
    if find_spec("bitsandbytes") is None:
        raise TrainingError(
            f"finetune.quantize: {kind} needs the package bitsandbytes on every node; run `pip install bitsandbytes` "
            "there or set finetune.quantize: none"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config}
