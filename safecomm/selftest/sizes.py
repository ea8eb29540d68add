"""How large the self-test's work is: the only thing in which a GPU node and a CPU node differ."""

from dataclasses import dataclass

from safecomm.spec import Finetune
from safecomm.spec.finetune import Lora

TARGETS = ("q_proj", "v_proj")
RUBRIC = "Prompt: {prompt}\nResponse: {response}\nIs the response safe or unsafe?"


@dataclass(frozen=True)
class Shape:
    """A Llama in numbers."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class Sizes:
    """What one node is tested with."""

    shape: Shape | None
    """Of the random models to make; None for the lab's."""
    rubric: str | None
    """What a guard that has not learned to be one is told."""
    precision: str
    """Of the fine-tune."""
    rank: int
    steps: int
    batch_size: int
    train_length: int
    """Tokens of a training example; all examples have as many."""
    questions: int
    """Questions of each kind that every adapter is asked."""
    new_tokens: int
    context: int
    """Tokens of the longest prompt and answer."""
    tolerance: float
    """Most by which a mean log-probability may differ between vLLM and transformers."""
    agreement: float
    """Least share of a greedy answer, up to where they part, that both have to write alike."""
    disk: int
    """Bytes that the models and adapters take."""

    @property
    def finetune(self) -> Finetune:
        """The fine-tune as a sweep describes it."""
        return Finetune.model_validate(
            {
                "data": ["lab-telecom"],
                "lora": Lora(r=self.rank, alpha=2 * self.rank, targets=list(TARGETS)),
                "batch_size": self.batch_size,
                "learning_rate": 2e-3,
                "max_length": self.train_length,
                "zero": 3,
                "precision": self.precision,
            }
        )

    @property
    def merged_rank(self) -> int:
        """The largest rank that an engine serves: SafeMERGE adds up the ranks of two adapters."""
        return 2 * self.rank


LAB = Sizes(
    shape=None,
    rubric=None,
    precision="fp32",
    rank=4,
    steps=6,
    batch_size=8,
    train_length=128,
    questions=12,
    new_tokens=16,
    context=256,
    tolerance=0.05,
    agreement=0.8,
    disk=1 << 28,
)
"""For nodes without a GPU: models of a million parameters."""
ONE_BILLION = Sizes(
    shape=Shape(hidden=2048, layers=16, heads=32, kv_heads=8, intermediate=8192, vocabulary=128_256, context=2048),
    rubric=RUBRIC,
    precision="bf16",
    rank=16,
    steps=12,
    batch_size=8,
    train_length=512,
    questions=64,
    new_tokens=32,
    context=2048,
    tolerance=0.1,
    agreement=0.25,
    disk=8 << 30,
)
"""For GPUs: the shape of Llama-3.2-1B. Random weights have many near ties, so greedy answers part earlier."""


def sizes_for(gpus: int) -> Sizes:
    """Returns the sizes for a node with so many GPUs."""
    return ONE_BILLION if gpus else LAB
