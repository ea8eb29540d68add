"""The sizes of the self-test's models and workloads, the only difference between GPU nodes and CPU nodes."""

from dataclasses import dataclass

from safecomm.spec import Finetune
from safecomm.spec.finetune import Lora

TARGETS = ("q_proj", "v_proj")
RUBRIC = "Prompt: {prompt}\nResponse: {response}\nIs the response safe or unsafe?"


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Llama model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int


@dataclass(frozen=True)
class Sizes:
    """The sizes and limits of the checks on one node."""

    shape: Shape | None
    """The shape of the random models; None for the lab's models."""
    rubric: str | None
    """The instruction for a guard that was not trained as one."""
    precision: str
    """The precision of the fine-tune."""
    rank: int
    steps: int
    batch_size: int
    train_length: int
    """Tokens of each training example."""
    questions: int
    """The number of requests for a generated answer per adapter."""
    new_tokens: int
    context: int
    """The maximum number of tokens in a prompt and its answer."""
    tolerance: float
    """The largest difference allowed between mean log-probabilities from vLLM and transformers."""
    agreement: float
    """The minimum share of a greedy answer before the first difference between vLLM and transformers."""
    disk: int
    """Bytes of disk for the models and adapters."""

    @property
    def finetune(self) -> Finetune:
        """The fine-tune in the format of a sweep."""
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
        """The largest rank that an engine serves: SafeMERGE adds the ranks of two adapters."""
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
"""For GPUs: the shape of Llama-3.2-1B. Random weights have many near ties, so greedy answers diverge earlier."""


def sizes_for(gpus: int) -> Sizes:
    """Returns the sizes for a node with the given number of GPUs."""
    return ONE_BILLION if gpus else LAB
