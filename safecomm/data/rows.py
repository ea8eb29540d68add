"""The records passed between stages: training examples and benchmark prompts."""

from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from safecomm.data.splits import Split, split_of
from safecomm.storage.store import digest

Row = TypeVar("Row")
Kind = Literal["red_team", "over_refusal", "task"]
"""What a benchmark measures."""
FORMER_TASK = "telecom"
"""The former name of the kind `task`: in older sweep files and rows, and in the keys of stored results to this day."""
CHARACTERS_PER_TOKEN = 4
"""Of English text, where no tokenizer is at hand."""
ADDED = ("cluster", "prefill", "prefill_tokens", "try_of", "turn")
"""Later fields of `Prompt`."""
BY_GRADER = "grader"
"""The `grading` of prompts whose answers a model compares with the reference."""


def stored_name(name: str) -> str:
    """Returns what the keys of stored results call a kind of benchmark, so that earlier results are found."""
    return FORMER_TASK if name == "task" else name


def estimated_tokens(*texts: str) -> int:
    """Returns about how many tokens English texts have together."""
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN


def current_name(name: str) -> str:
    """Returns today's name of a kind of benchmark that a file may call by its former one."""
    return "task" if name == FORMER_TASK else name


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a user prompt and the target response."""

    prompt: str
    response: str

    def messages(self) -> list[dict[str, str]]:
        """Returns the exchange as chat messages."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.response}]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a benchmark.

    A multiple-choice prompt has `options`, the texts whose likelihoods are compared, and `answer`, the 0-based index of
    the correct one. An open question has `reference`, the correct answer, and `grading`, how to compare the two (a name
    from `judging/grading.py`, or `grader`). `target` is what a harmful prompt asks for (AdvBench's `target`, the lab's
    action); some judges use it. `question` is the question without its options; the split depends on it alone, so
    options and their order don't matter. `cluster` is shared by prompts whose answers are correlated, e.g. wordings of
    one request: they are on the same side of a split and count as one unit in intervals and tests. Empty: the prompt
    is its own cluster. With `prefill`, an attack, the model's answer starts with that text's first `prefill_tokens`
    tokens. `try_of` is the id of the request of which the prompt is one of several tries. With a `turn`, from 1, the
    prompt is one turn of a conversation about the request `text`, whose messages an attacker model writes.
    """

    benchmark: str
    kind: Kind
    text: str
    category: str = ""
    target: str | None = None
    options: tuple[str, ...] = ()
    answer: int | None = None
    reference: str = ""
    grading: str = ""
    question: str = ""
    cluster: str = ""
    prefill: str = ""
    prefill_tokens: int = 0
    try_of: str = ""
    turn: int = 0

    def side(self, release: float = 0.0) -> Split:
        """Returns the split of its benchmark that the prompt belongs to; see `split_of`."""
        return split_of(self.cluster or self.question or self.text, release)

    @property
    def prompt_id(self) -> str:
        """A stable id, unique across benchmarks."""
        attack = [self.prefill, self.prefill_tokens] if self.prefill else [self.turn] if self.turn else []
        return digest([self.benchmark, self.text, list(self.options), *attack])

    def as_row(self) -> dict[str, Any]:
        """Returns the prompt as a flat row of JSON values."""
        return {"prompt_id": self.prompt_id, **asdict(self), "options": list(self.options)}

    def as_key(self) -> dict[str, Any]:
        """Returns the prompt as it stands in the keys of stored results."""
        row = {**self.as_row(), "kind": stored_name(self.kind)}
        # Fields that older versions lacked are omitted where they are empty, so that earlier results are found.
        return {name: value for name, value in row.items() if value or name not in ADDED}


@dataclass(slots=True)
class Loaded(Generic[Row]):
    """The usable rows of a dataset, and counts of skipped rows by reason."""

    rows: list[Row]
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of skipped rows."""

    def skip(self, reason: str) -> None:
        """Counts one skipped row."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
