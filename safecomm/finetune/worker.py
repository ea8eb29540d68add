"""The training function of every rank: TRL's SFTTrainer on a PEFT LoRA, sharded by DeepSpeed."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from safecomm.cluster.session import TRIALS_WITHOUT_GPU
from safecomm.data.turns import training_ids
from safecomm.errors import TrainingError
from safecomm.finetune.checkpoints import newest, publishing_callback
from safecomm.finetune.deepspeed_internals import reduce_with_gloo
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.memory import peak_bytes
from safecomm.finetune.model import load_model
from safecomm.finetune.zero import deepspeed_config
from safecomm.storage import shared

MANY_ROWS = 20_000
"""Training sets of this size are tokenized in several processes; for smaller ones, starting them takes longer."""
MAX_TOKENIZERS = 16
LOGS_PER_RUN = 50
BELOW = "below"
"""The name of the adapter on top of which another is trained."""
STEPS_PER_REPORT = 100
"""Ray Train handles a report every two seconds, and all ranks wait for it; so short runs must not report every log."""


def train(settings: dict[str, Any]) -> dict[str, Any]:
    """Trains the adapter and, on rank 0, writes it to `settings["out"]`.

    Args:
        settings: `job` (a FinetuneJob's fields), `out` (the adapter's folder), `checkpoints` (a folder that all ranks
            share or mirror).

    Returns:
        `steps`, `loss` (mean over the run), `seconds`, `peak_bytes` (of rank 0) and `curve` (the logged losses).

    Raises:
        TrainingError: at the first non-finite loss, or if this machine does not support the settings.
    """
    import ray.train
    import torch

    job, out, checkpoints = FinetuneJob(**settings["job"]), Path(settings["out"]), Path(settings["checkpoints"])
    job = job.on_this_node()
    trainer = make_trainer(job, str(checkpoints))
    trainer.add_callback(_reporting_callback())
    trainer.add_callback(publishing_callback(checkpoints))
    if job.kept_steps:
        trainer.add_callback(_keeping_callback(trainer, job, out))
    started = time.time()
    # After resuming, the adapters of earlier steps would be missing, and the Trainer loads one adapter only.
    whole = job.kept_steps or job.on_top
    result = trainer.train(resume_from_checkpoint=None if whole else newest(checkpoints))
    trainer.save_model(str(out))
    if ray.train.get_context().get_world_rank() == 0:
        shutil.rmtree(out / BELOW, ignore_errors=True)  # PEFT saves it too
        shared.publish_parts(out)
    if job.swap:
        torch.distributed.barrier()  # other ranks on this node may still read their shards
        shutil.rmtree(job.swap, ignore_errors=True)
    return {
        "steps": result.global_step,
        "loss": result.training_loss,
        "seconds": round(time.time() - started, 2),
        "ranks": ray.train.get_context().get_world_size(),
        "peak_bytes": peak_bytes(),
        "curve": [entry for entry in trainer.state.log_history if "loss" in entry],
    }


def make_trainer(job: FinetuneJob, checkpoints: str) -> Any:
    """Returns this rank's SFTTrainer with the model loaded and sharded; needs the distributed environment to be set.

    Raises:
        TrainingError: if this machine does not support the settings.
    """
    import deepspeed
    import torch
    from transformers import AutoTokenizer, set_seed

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # With more threads than cores, OpenMP threads busy-wait for each other and a step takes ten times as long.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // (job.workers * TRIALS_WITHOUT_GPU)))
    reduce_with_gloo()
    # Must run before the model is loaded: ZeRO-3 needs the number of ranks to shard the weights.
    deepspeed.init_distributed(dist_backend="nccl" if on_gpu else "gloo")
    set_seed(job.seed)
    bf16 = job.precision == "bf16" or (job.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())
    arguments = _arguments(job, checkpoints, bf16=bf16, on_gpu=on_gpu)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    with arguments.main_process_first(desc="tokenizing"):  # the other ranks of a node read its cache
        rows = _dataset(job, tokenizer)
    model = load_model(job, bf16=bf16, on_gpu=on_gpu)
    return _trainer_class(job)(
        args=arguments, processing_class=tokenizer, train_dataset=rows, **_model_and_adapter(model, job)
    )


def _model_and_adapter(model: Any, job: FinetuneJob) -> dict[str, Any]:
    """Returns the trainer's arguments for a new adapter, for the one to train further, or for both."""
    from peft import LoraConfig, PeftModel

    if job.start and not job.on_top:
        return {"model": PeftModel.from_pretrained(model, job.start, is_trainable=True)}
    config = LoraConfig(
        r=job.rank,
        lora_alpha=job.alpha,
        lora_dropout=job.dropout,
        target_modules=list(job.targets),
        task_type="CAUSAL_LM",
    )
    return {"model": _on_top(model, job, config)} if job.on_top else {"model": model, "peft_config": config}


def _on_top(model: Any, job: FinetuneJob, config: Any) -> Any:
    """Returns the model with the adapter that stays as it is, and a new one that is trained."""
    import torch
    from peft import PeftModel

    both = PeftModel.from_pretrained(model, job.start, adapter_name=BELOW)
    both.add_adapter("default", config)
    both.base_model.set_adapter([BELOW, "default"])
    for module in both.modules():
        if BELOW in getattr(module, "lora_dropout", {}):
            module.lora_dropout[BELOW] = torch.nn.Identity()  # a merged adapter would have none
    for name, parameter in both.named_parameters():
        parameter.requires_grad_("lora_" in name and f".{BELOW}." not in name)
    return both


def _arguments(job: FinetuneJob, checkpoints: str, *, bf16: bool, on_gpu: bool) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        output_dir=checkpoints,
        num_train_epochs=job.epochs,
        max_steps=job.steps or -1,
        per_device_train_batch_size=job.micro_batch_size,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        lr_scheduler_type=job.schedule,
        warmup_steps=job.warmup,
        weight_decay=job.weight_decay,
        max_length=job.max_length,
        # TRL creates labels before packing, keeps examples whole ("bfd") and restarts positions at 0 for each example.
        # transformers uses these positions to mask examples from each other, unless a model builds its own mask.
        packing=job.packing,
        packing_strategy="bfd",
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        bf16=bf16,
        use_cpu=not on_gpu,
        gradient_checkpointing=on_gpu if job.gradient_checkpointing is None else job.gradient_checkpointing,
        deepspeed=deepspeed_config(job, bf16=bf16),
        seed=job.seed,
        logging_steps=1 / LOGS_PER_RUN,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=job.save_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )


def _dataset(job: FinetuneJob, tokenizer: Any) -> Any:
    """Returns tokenized examples with a mask, so that the loss covers only the answer with any chat template.

    TRL would take text that looks like a special token for one, and a row could end its turn.
    """
    from datasets import load_dataset

    rows = load_dataset("json", data_files=job.data, split="train")
    return rows.map(
        _tokenized,
        fn_kwargs={"tokenizer": tokenizer, "arguments": job.chat_template_kwargs or {}},
        remove_columns=rows.column_names,
        num_proc=tokenizers(len(rows)),
    )


def _tokenized(row: dict[str, str], tokenizer: Any, arguments: dict[str, Any]) -> dict[str, list[int]]:
    return training_ids(tokenizer, row["prompt"], row["response"], **arguments)


def tokenizers(rows: int) -> int | None:
    """Returns the number of processes that tokenize a training set on each node while the ranks wait; None for one."""
    return min(MAX_TOKENIZERS, os.cpu_count() or 1) if rows >= MANY_ROWS else None


def _trainer_class(job: FinetuneJob) -> Any:
    import torch
    from trl import SFTTrainer

    class CheckedTrainer(SFTTrainer):  # type: ignore[misc]
        """Stops at the first non-finite loss, before it corrupts the adapter; saves the adapter without the model."""

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if job.zero == 3:  # every rank must help to gather the adapter
                super().save_model(output_dir, _internal_call)
            else:  # transformers would copy the whole model to the host's memory, on every rank
                self._save(output_dir)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {self.state.global_step + 1}; "
                    "lower finetune.learning_rate or check the data of that step"
                )
            return loss

    return _with_losses(CheckedTrainer, job) if job.losses else CheckedTrainer


def _with_losses(trainer: Any, job: FinetuneJob) -> Any:
    """Returns a trainer whose loss goes through the training defenses.

    TRL computes the cross-entropy without logits, and those that it returns with it have no gradient. So the model
    runs once more for the defenses.
    """
    from safecomm.defenses.defense import TrainingDefense
    from safecomm.defenses.registry import defense_of

    defenses = [defense_of(name).checked(settings) for name, settings, _ in job.losses]

    class DefendedTrainer(trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            loss = super().compute_loss(model, inputs, **more)
            outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
            for defense in defenses:
                if isinstance(defense, TrainingDefense):
                    loss = defense.loss(loss, model, inputs, outputs)
            return (loss, outputs) if return_outputs else loss

    return DefendedTrainer


def _keeping_callback(trainer: Any, job: FinetuneJob, out: Path) -> Any:
    from transformers import TrainerCallback

    class KeepAdapters(TrainerCallback):  # type: ignore[misc]
        """Writes the adapter after some of the steps; every rank must install it."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in job.kept_steps:
                trainer.save_model(str(out / str(state.global_step)))

    return KeepAdapters()


def _reporting_callback() -> Any:
    import ray.train
    from transformers import TrainerCallback

    class ReportToRay(TrainerCallback):  # type: ignore[misc]
        """Reports loss and throughput to Ray Train; every rank must report because Ray Train synchronizes them."""

        def __init__(self) -> None:
            self.started = time.time()
            self.reported = 0

        def _is_due(self, step: int, steps: int) -> bool:
            """Returns whether to report; depends only on the step, so all ranks agree."""
            interval = max(STEPS_PER_REPORT, steps // LOGS_PER_RUN)
            if step // interval == self.reported:
                return False
            self.reported = step // interval
            return True

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.started = time.time()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            if not logs or "loss" not in logs or not self._is_due(state.global_step, state.max_steps):
                return
            speed = logs.get("num_tokens", 0.0) / max(time.time() - self.started, 1e-9)
            ray.train.report(
                {
                    "train/loss": logs["loss"],
                    "train/learning_rate": logs["learning_rate"],
                    "train/step": state.global_step,
                    "train/steps": state.max_steps,
                    "train/tokens_per_second": round(speed, 1),
                }
            )

    return ReportToRay()
