"""Trains a small model on exchanges, with the loss on the answers only, in plain PyTorch on the CPU."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, LlamaForCausalLM, PreTrainedTokenizerFast

from safecomm.data.rows import Example

IGNORED = -100
WARMUP, FINAL = 0.05, 0.05
"""Share of the steps for the warm-up, and the final learning rate as a share of its peak."""
BUCKET = 16
"""Batches per pool; pools are sorted by length to reduce padding."""
REPORT_SECONDS = 10.0
FLOAT32_ATTENTION = "float32_sdpa"


@dataclass(frozen=True)
class Stage:
    """One training stage, a single epoch over its examples."""

    examples: int
    learning_rate: float
    batch_size: int
    optimizer: Literal["muon", "adamw"]


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange as tokens; the labels are the answer's tokens, and `IGNORED` before it."""

    tokens: list[int]
    labels: list[int]


def encode(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> list[Row]:
    """Tokenizes exchanges with the chat template."""
    encoded = tokenizer.apply_chat_template(
        [example.messages() for example in examples], return_dict=True, return_assistant_tokens_mask=True
    )
    return [
        Row(tokens, [token if marked else IGNORED for token, marked in zip(tokens, mask, strict=True)])
        for tokens, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    ]


def train(
    model: LlamaForCausalLM,
    rows: Sequence[Row],
    stage: Stage,
    seed: int,
    report: Callable[[str], None],
    bf16: bool = False,
) -> None:
    """Trains all weights of a model in place.

    With `muon`, Muon trains the matrices, because it needs fewer examples than AdamW, and AdamW trains the embeddings
    and norms. Muon's update is scaled to the size of AdamW's, so both use the same learning rate (Liu et al., arXiv
    2502.16982). Weights and attention stay in float32.

    Args:
        model: the model.
        rows: the training data, used once.
        stage: the hyperparameters; its number of examples is ignored.
        seed: seed for the order of the rows.
        report: called with a progress line every ten seconds, without the stage's name.
        bf16: compute matrix products in bfloat16, which is faster on processors with instructions for it.
    """
    batches = _batches(rows, stage.batch_size, random.Random(seed))
    optimizers = _optimizers(model, stage.optimizer)
    AttentionInterface.register(FLOAT32_ATTENTION, _float32_attention)
    model.set_attn_implementation(FLOAT32_ATTENTION)
    model.train()
    clock = _Clock(len(batches), report)
    for step, batch in enumerate(batches):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * _schedule(step, len(batches))
        loss = _answer_loss(model, *_pad([rows[i] for i in batch]), bf16)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        clock.tick(step + 1, loss.item())
    model.eval()


@contextmanager
def reproducibly(threads: int, seed: int) -> Iterator[None]:
    """Sets torch's number of threads and random seed; restores both on exit."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def _optimizers(model: LlamaForCausalLM, name: str) -> list[torch.optim.Optimizer]:
    layers = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    by_muon = layers if name == "muon" else []
    known = {id(weight) for weight in by_muon}
    by_adamw = [weight for weight in model.parameters() if id(weight) not in known]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(by_adamw, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    ]
    if by_muon:
        optimizers.append(torch.optim.Muon(by_muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def _schedule(step: int, steps: int) -> float:
    """Returns the learning rate as a share of its peak: linear warm-up, then cosine decay."""
    rise = (step + 1) / max(1.0, WARMUP * steps)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(rise, FINAL + (1 - FINAL) * cosine)


def _batches(rows: Sequence[Row], size: int, rng: random.Random) -> list[list[int]]:
    """Returns batches of row indices; rows in a batch have similar lengths, and the batches are shuffled."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), size * BUCKET):
        pool = sorted(order[start : start + size * BUCKET], key=lambda i: len(rows[i].tokens))
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def _pad(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Returns tokens and labels, [rows, longest]. Padding is on the right, so causal attention ignores it."""
    longest = max(len(row.tokens) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    return tokens, labels


def _answer_loss(model: LlamaForCausalLM, tokens: Tensor, labels: Tensor, bf16: bool) -> Tensor:
    """Returns the mean cross-entropy over the answers' tokens; computes logits only at their positions."""
    following = labels[:, 1:]
    answered = following != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[answered])
    return functional.cross_entropy(logits.float(), following[answered])


def _float32_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Computes causal attention outside autocast, because its bfloat16 backward pass is ten times slower on CPUs."""
    with torch.autocast("cpu", enabled=False):
        mixed = functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=True)
    return mixed.transpose(1, 2).contiguous(), None


class _Clock:
    """Reports a stage's progress at regular intervals."""

    def __init__(self, steps: int, report: Callable[[str], None]):
        self.steps, self.report = steps, report
        self.started = self.last = time.monotonic()
        self.losses: list[float] = []

    def tick(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if now - self.last < REPORT_SECONDS and step < self.steps:
            return
        mean = sum(self.losses) / len(self.losses)
        seconds_left = (now - self.started) / step * (self.steps - step)
        self.report(f"step {step} of {self.steps}, loss {mean:.3f}, {seconds_left:.0f} s left")
        self.last, self.losses = now, []
