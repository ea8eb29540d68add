"""The weights that a rank holds: its shard under ZeRO-3, all of them otherwise, in 4 bits if asked."""

from importlib.util import find_spec
from typing import Any

from safecomm.errors import TrainingError
from safecomm.finetune.job import FinetuneJob


def load_model(job: FinetuneJob, *, bf16: bool, on_gpu: bool) -> Any:
    """Returns the frozen model.

    Under ZeRO-3 no rank ever holds it whole: transformers asks the configuration of the living training arguments, has
    each weight sharded as it is made, and rank 0 alone maps the files and hands out one module at a time. So the
    training arguments must be made before, and be alive.

    Raises:
        TrainingError: for 4-bit weights without what they take, and for packing with a model that can't keep packed
            examples apart.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32}
    if job.quantize != "none":
        options |= _quantized(job.quantize, usable=bf16 and on_gpu)
    model = AutoModelForCausalLM.from_pretrained(job.model, **options)
    # The others make masks of their own, or carry a state from one example to the next.
    if job.packing and not model.is_backend_compatible():
        raise TrainingError(
            f"finetune.packing: in a model of type {model.config.model_type} each example would see those before it in "
            "its row; set finetune.packing: false"
        )
    return model


def _quantized(kind: str, *, usable: bool) -> dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig

    if not usable:
        raise TrainingError(
            f"finetune.quantize: {kind} takes GPUs that compute in bf16, and this worker has none; set "
            "finetune.quantize: none"
        )
    if find_spec("bitsandbytes") is None:
        raise TrainingError(
            f"finetune.quantize: {kind} needs the package bitsandbytes on every node; `pip install bitsandbytes` "
            "there, or set finetune.quantize: none"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}
