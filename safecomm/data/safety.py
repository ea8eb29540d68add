"""Safety training data: harmful requests with safe answers (safety-tuned-llamas; Bianchi et al., arXiv 2309.07875)."""

from safecomm.data.dataset import Counts, Dataset
from safecomm.data.rows import Example, Loaded
from safecomm.data.sources import GITHUB, RAW, Web
from safecomm.data.table import Raw, Table, collected, text_in


def examples(table: Table) -> Loaded[Example]:
    """Returns instruction-output rows as examples; an `input` is appended to its instruction after a blank line."""
    instruction, output, context = table.column(["instruction"]), table.column(["output"]), table.find(["input"])

    def read(row: Raw) -> tuple[str, Example] | str:
        prompt = "\n\n".join(filter(None, [text_in(row, instruction), text_in(row, context)]))
        response = text_in(row, output)
        return (prompt, Example(prompt, response)) if response else "empty response"

    return collected(table, read)


SETS: dict[str, Dataset] = {
    "safety-tuned-llamas": Dataset(
        title="Safety-Tuned LLaMAs: harmful instructions with safe answers",
        roles=frozenset({"safety"}),
        licence="CC BY-NC 4.0",
        source=Web(
            f"{RAW}/vinid/safety-tuned-llamas/3ce5779d564ec1f3d87b0bef87261328c8abbd25"
            "/data/training/safety_only_data_Instructions.json",
            f"{GITHUB}/vinid/safety-tuned-llamas",
        ),
        files=("safety_only_data_Instructions.json",),
        counts=Counts(examples=2479, tokens=103),
        examples=examples,
    ),
}
