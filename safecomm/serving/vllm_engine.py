"""An engine based on vLLM, with many adapters on one loaded model."""

import asyncio
import itertools
import os
from functools import partial
from pathlib import Path
from typing import Any

from safecomm.serving.engine import (
    Answer,
    EngineSettings,
    Question,
    chat_ids,
    compared,
    end_ids,
    failed,
    opening,
    option_score,
    too_long,
    written,
)
from safecomm.serving.lora_slots import lora_arguments
from safecomm.serving.precision import cpu_dtype
from safecomm.serving.reasoning import ReasoningSplitter
from safecomm.serving.startup import engine_seconds

CPU_KV_CACHE_GIB = 1
CPU_STEP_TOKENS = 4096
"""vLLM's tokens per step on a CPU, which a small model does in a second."""
CPU_FLOPS = 50e9
"""What a core does in a second in large fp32 products: half of what AVX2 allows at 3 GHz."""
CPU_WORKER = "safecomm.serving.cpu_lora.Worker"


class VllmEngine:
    """Runs one vLLM AsyncLLM."""

    def __init__(self, model: str, settings: EngineSettings):
        """Loads the model.

        Args:
            model: its folder.
            settings: length limits, largest adapter rank and parallelism.
        """
        arguments = engine_arguments(model, settings)
        from transformers import AutoTokenizer
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        # The usage context sets vLLM's batch size limits: those of the offline interface are two to eight times larger.
        context = UsageContext.LLM_CLASS
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), usage_context=context)
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._splitter = ReasoningSplitter(self._tokenizer)
        whole = partial(SamplingParams, output_kind=RequestOutputKind.FINAL_ONLY)
        # vLLM adds the model's EOS tokens from generation_config.json.
        ends = [] if settings.ignore_eos else end_ids(self._tokenizer)
        self._write = partial(
            whole, max_tokens=settings.max_new_tokens, ignore_eos=settings.ignore_eos, stop_token_ids=ends
        )
        self._compare = partial(whole, temperature=0, max_tokens=1)
        self._longest = settings.max_model_len
        self._adapters: dict[str, int] = {}
        self._names = itertools.count()

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers all questions concurrently; vLLM batches them with other requests."""
        lora = self._lora(adapter)
        return await asyncio.gather(*(self._answer(question, lora) for question in questions))

    async def check_health(self) -> None:
        """Raises if vLLM's engine process has died."""
        await self._engine.check_health()

    @property
    def cache_tokens(self) -> int:
        """Tokens that vLLM's KV cache has room for."""
        return int(self._engine.vllm_config.cache_config.kv_cache_size_tokens or 0)

    async def _answer(self, question: Question, lora: Any) -> Answer:
        prompt = chat_ids(self._tokenizer, question)
        options = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in question["options"]]
        start, start_text = opening(self._tokenizer, question)
        if len(prompt) + max(map(len, [*options, start])) >= self._longest:
            return too_long()
        try:
            if options:
                logprobs = await self._compared(prompt, options, lora)
                return compared([option_score(one, question) for one in logprobs])
            sampled = {"temperature": 1, "seed": question["seed"]} if "seed" in question else {"temperature": 0}
            output = (await self._run(prompt + start, self._write(**sampled), lora)).outputs[0]
        except ValueError as error:  # vLLM rejects the request
            return failed(str(error))
        parts = self._splitter.split(prompt, output.token_ids, output.text)
        return written(parts, output.finish_reason or "", start_text, len(output.token_ids))

    async def _compared(self, prompt: list[int], options: list[list[int]], lora: Any) -> list[list[float]]:
        """Returns the log-probabilities of every option's tokens; one-token options share a single prefill."""
        if max(map(len, options)) > 1:
            return list(await asyncio.gather(*(self._score(prompt, tokens, lora) for tokens in options)))
        ids = [token for (token,) in options]
        output = await self._run(prompt, self._compare(logprob_token_ids=ids), lora)
        first = output.outputs[0].logprobs[0]
        return [[float(first[token].logprob)] for token in ids]

    async def _score(self, prompt: list[int], tokens: list[int], lora: Any) -> list[float]:
        output = await self._run(prompt + tokens, self._compare(prompt_logprobs=0), lora)
        logprobs = output.prompt_logprobs[len(prompt) :]
        return [float(one[token].logprob) for one, token in zip(logprobs, tokens, strict=True)]

    async def _run(self, prompt: list[int], sampling: Any, lora: Any) -> Any:
        final = None
        stream = self._engine.generate(
            {"prompt_token_ids": prompt}, sampling, f"{next(self._names)}", lora_request=lora
        )
        async for output in stream:
            final = output
        return final

    def _lora(self, adapter: str | None) -> Any:
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        number = self._adapters.setdefault(adapter, len(self._adapters) + 1)
        return LoRARequest(adapter, number, adapter)


def engine_arguments(model: str, settings: EngineSettings) -> dict[str, Any]:
    """Returns vLLM's arguments; also sets environment variables, which must precede the import of vLLM."""
    # By default vLLM gives up after 600 s, and Serve would start the engine of a large model again and again.
    os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", f"{engine_seconds(Path(model)):.0f}")
    if not settings.on_gpu:
        _set_up_cpu()
    return {
        "model": model,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "distributed_executor_backend": "ray" if settings.gpus > 1 else "uni",
        # On a CPU, compilation costs more than it saves; on a GPU, CUDA graphs halve the time of a LoRA step.
        "enforce_eager": not settings.on_gpu,
        **({} if settings.on_gpu else _on_cpu(model, settings)),
        **lora_arguments(Path(model), settings, _gpu_bytes() if settings.on_gpu else None),
    }


def _gpu_bytes() -> int:
    """Returns a GPU's memory as read by vLLM; unlike torch's call, this creates no CUDA context in this process."""
    from vllm.platforms import current_platform

    return int(current_platform.get_device_total_memory())


def _on_cpu(model: str, settings: EngineSettings) -> dict[str, Any]:
    """Returns the arguments that differ without a GPU.

    By default vLLM runs a float32 model in bfloat16, so the answers would depend on the CPU.

    Sampling with seeds needs chunked prefill disabled: with it, vLLM rewinds the random generator by an offset, which
    CPU generators don't support, and the engine crashes.
    """
    import torch
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(model).dtype or torch.float32
    size = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    step = step_tokens(size / stored.itemsize, _threads())
    arguments: dict[str, Any] = {"worker_cls": CPU_WORKER, "dtype": cpu_dtype(stored)}
    if settings.sampled:
        arguments["enable_chunked_prefill"] = False
        step = max(step, settings.max_model_len)  # a prompt is one step
    return arguments | ({"max_num_batched_tokens": step} if step < CPU_STEP_TOKENS else {})


def step_tokens(parameters: float, threads: int) -> int:
    """Returns how many tokens a CPU processes in about a second, at two operations per parameter and token.

    At its start vLLM runs a step of that size to measure its memory, and no answer is finished before the step that it
    is in. At least the 256 sequences that vLLM continues in a step must fit.
    """
    return min(CPU_STEP_TOKENS, max(256, int(threads * CPU_FLOPS / (2 * parameters))))


def _threads() -> int:
    """Returns the threads of vLLM's engine process; one core is left for Ray."""
    return max(1, (os.cpu_count() or 1) - 1)


def _set_up_cpu() -> None:
    """Sets environment variables for vLLM's engine process.

    By default vLLM on CPUs runs the model in a third process, which takes its thread count from vLLM, while the engine
    process busy-waits for its answers and uses half of the CPU time. Without `multiprocessing` the model runs in the
    engine process, which AsyncLLM still keeps separate from ours.
    """
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_KV_CACHE_GIB))
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["OMP_NUM_THREADS"] = str(_threads())
