"""An engine based on transformers and PEFT, for platforms without a vLLM build."""

import asyncio
from collections.abc import Iterator
from typing import Any

from safecomm.serving.engine import (
    Answer,
    EngineSettings,
    Question,
    chat_ids,
    compared,
    end_ids,
    opening,
    option_score,
    too_long,
    written,
)
from safecomm.serving.precision import cpu_dtype
from safecomm.serving.reasoning import ReasoningSplitter

BATCH = 32
Numbered = list[tuple[int, list[int]]]
"""Question indices with their token ids."""


class TransformersEngine:
    """Runs one transformers model; loads adapters on first use."""

    def __init__(self, model: str, settings: EngineSettings):
        """Loads the model.

        Args:
            model: its folder.
            settings: length limits and `on_gpu`; adapter rank and parallelism are ignored.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        self._settings = settings
        # Ray 2.60 does not hide the GPUs of others from an actor that reserves none.
        self._device = "cuda" if settings.on_gpu and torch.cuda.is_available() else "cpu"
        stored = AutoConfig.from_pretrained(model).dtype
        dtype = cpu_dtype(stored) if self._device == "cpu" else stored or "auto"
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(self._device).eval()
        self._splitter = ReasoningSplitter(self._tokenizer)
        eos = self._model.generation_config.eos_token_id
        self._ends = sorted({*end_ids(self._tokenizer), *(eos if isinstance(eos, list) else [eos])} - {None})
        # `generate` takes whatever it isn't told from this: models ship with sampling and repetition penalties.
        self._model.generation_config = GenerationConfig(
            eos_token_id=self._ends, pad_token_id=self._tokenizer.pad_token_id
        )
        self._adapters: dict[str, str] = {}
        self._turn = asyncio.Lock()

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers in batches, one call at a time, because the active adapter is global to the model."""
        async with self._turn:
            return await asyncio.to_thread(self._answer_all, questions, adapter)

    async def check_health(self) -> None:
        """Does nothing: the engine is healthy as long as its process lives."""

    @property
    def cache_tokens(self) -> int:
        """None: each batch has a cache of its own."""
        return 0

    def _answer_all(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        self._switch(adapter)
        answers: dict[int, Answer] = {}
        to_write: Numbered = []
        starts: dict[int, str] = {}
        for index, question in enumerate(questions):
            prompt = chat_ids(self._tokenizer, question)
            start, starts[index] = opening(self._tokenizer, question)
            tails = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in question["options"]]
            longest = max(map(len, tails)) if tails else len(start) + self._settings.max_new_tokens
            if len(prompt) + longest > self._settings.max_model_len:
                answers[index] = too_long()
            elif tails:
                logprobs = self._score(prompt, tails)
                answers[index] = compared([option_score(one, question) for one in logprobs])
            else:
                to_write.append((index, prompt + start))
        for seed, batch in _batches(to_write, questions):
            for (index, _), answer in zip(batch, self._write([prompt for _, prompt in batch], seed), strict=True):
                answers[index] = answer | {"response": starts[index] + answer["response"]}
        return [answers[index] for index in range(len(questions))]

    def _write(self, prompts: list[list[int]], seed: int | None) -> list[Answer]:
        import torch

        batch = self._tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(self._device)
        sampling = {"do_sample": False} if seed is None else {"do_sample": True, "top_k": 0}
        with torch.inference_mode(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            output = self._model.generate(
                **batch,
                **sampling,
                max_new_tokens=self._settings.max_new_tokens,
                min_new_tokens=self._settings.max_new_tokens if self._settings.ignore_eos else None,
            )
        rows = output[:, batch["input_ids"].shape[1] :]
        is_end = torch.isin(rows, torch.tensor(self._ends, device=self._device))
        ends, before = is_end.any(dim=1).tolist(), (is_end.cumsum(dim=1) == 0).sum(dim=1).tolist()
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [
            written(self._splitter.split(prompt, row, text), "stop" if end else "length", tokens=length + end)
            for prompt, row, text, end, length in zip(prompts, rows.tolist(), texts, ends, before, strict=True)
        ]

    def _score(self, prompt: list[int], tails: list[list[int]]) -> list[list[float]]:
        """Returns the log-probabilities of every option's tokens."""
        import torch

        rows = [prompt + tail for tail in tails]
        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            logits = self._model(**batch).logits[:, :-1].float()
        chosen = torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
        return [row[-len(tail) :].tolist() for row, tail in zip(chosen, tails, strict=True)]

    def _switch(self, adapter: str | None) -> None:
        """Activates an adapter, loading it on first use, or deactivates all."""
        model: Any = self._model
        if adapter is None:
            if self._adapters:
                model.disable_adapters()
            return
        if adapter not in self._adapters:
            self._adapters[adapter] = f"adapter{len(self._adapters)}"
            model.load_adapter(adapter, adapter_name=self._adapters[adapter])
        model.enable_adapters()
        model.set_adapter(self._adapters[adapter])


def _batches(prompts: Numbered, questions: list[Question]) -> Iterator[tuple[int | None, Numbered]]:
    """Yields batches of prompts with their seed; a sampled prompt gets its own batch, because a batch has one seed."""
    for index, prompt in prompts:
        if "seed" in questions[index]:
            yield questions[index]["seed"], [(index, prompt)]
    greedy = [(index, prompt) for index, prompt in prompts if "seed" not in questions[index]]
    for start in range(0, len(greedy), BATCH):
        yield None, greedy[start : start + BATCH]
