"""What flows between the stages: training examples and benchmark prompts."""

from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

from safecomm.data.splits import Split, split_of
from safecomm.storage.store import digest

Row = TypeVar("Row")
Kind = Literal["red_team", "over_refusal", "task"]
"""What a benchmark measures."""
FORMER_TASK = "telecom"
"""The former name of the kind `task`: in older sweep files and rows, and in the keys of stored results to this day."""
BY_GRADER = "grader"
"""The grading of answers that a model compares with the reference answer."""


def stored_name(name: str) -> str:
    """Returns what the keys of stored results call a kind of benchmark, so that earlier results are found."""
    return FORMER_TASK if name == "task" else name


def current_name(name: str) -> str:
    """Returns today's name of a kind of benchmark that a file may call by its former one."""
    return "task" if name == FORMER_TASK else name


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised exchange: what the user asks and what the model is to answer."""

    prompt: str
    response: str

    def messages(self) -> list[dict[str, str]]:
        """Returns the exchange as chat messages."""
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.response}]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a benchmark.

    A multiple-choice prompt has `options`, the texts among which the model's likelihood decides, and `answer`, the
    0-based index of the right one. One that is answered in words has `reference`, the right answer, and `grading`, how
    the two are compared (a name of `evaluate/grading.py`, or `grader`). `target` is what a harmful prompt is after
    (AdvBench's `target`, the lab's action), for judges that look for it. `question` is the question alone, where the
    text has its options too: it decides the side of the split, whatever the options and their order.
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

    @property
    def side(self) -> Split:
        """The half of its benchmark that it belongs to."""
        return split_of(self.question or self.text)

    @property
    def prompt_id(self) -> str:
        """A stable name of the prompt within all benchmarks."""
        return digest([self.benchmark, self.text, list(self.options)])

    def as_row(self) -> dict[str, Any]:
        """Returns the prompt as a flat row of JSON-able values."""
        return {"prompt_id": self.prompt_id, **asdict(self), "options": list(self.options)}

    def as_key(self) -> dict[str, Any]:
        """Returns the prompt as it stands in the keys of stored results."""
        return {**self.as_row(), "kind": stored_name(self.kind)}


@dataclass(slots=True)
class Loaded(Generic[Row]):
    """The usable rows of a dataset, and why the others are not among them."""

    rows: list[Row]
    skipped: dict[str, int] = field(default_factory=dict)
    """reason -> number of rows left out for it"""

    def skip(self, reason: str) -> None:
        """Counts one row left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
