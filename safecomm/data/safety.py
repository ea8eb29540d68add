"""Safety training data: harmful requests with safe answers.

aegis-refusals (Ghosh et al., NAACL 2025) allows commercial use, safety-tuned-llamas (Bianchi et al., arXiv 2309.07875),
the set of the papers, does not.
"""

from safecomm.data.dataset import Counts, Dataset
from safecomm.data.rows import Example, Loaded
from safecomm.data.sources import GITHUB, RAW, Hub, Web
from safecomm.data.table import Raw, Table, collected, text_in


def examples(table: Table) -> Loaded[Example]:
    """Returns instruction-output rows as examples; an `input` is appended to its instruction after a blank line."""
    instruction, output, context = table.column(["instruction"]), table.column(["output"]), table.find(["input"])

    def read(row: Raw) -> tuple[str, Example] | str:
        prompt = "\n\n".join(filter(None, [text_in(row, instruction), text_in(row, context)]))
        response = text_in(row, output)
        return (prompt, Example(prompt, response)) if response else "empty response"

    return collected(table, read)


def aegis_refusals(table: Table) -> Loaded[Example]:
    """Returns Aegis 2.0's harmful prompts with refusals written for training; its other rows are for guards."""
    prompt, response = table.column(["prompt"]), table.column(["response"])
    label, written_for = table.column(["response_label"]), table.column(["response_label_source"])

    def read(row: Raw) -> tuple[str, Example] | str:
        text, answer = text_in(row, prompt), text_in(row, response)
        if text_in(row, written_for) != "refusal_data_augmentation" or text_in(row, label) != "safe":
            return "belongs to another part of the dataset"
        if text == "REDACTED":
            return "redacted prompt"
        return (text, Example(text, answer)) if answer else "empty response"

    return collected(table, read)


SETS: dict[str, Dataset] = {
    "aegis-refusals": Dataset(
        title="Aegis 2.0 (Nemotron Content Safety V2): 5,000 harmful requests with refusals (NAACL 2025)",
        roles=frozenset({"safety"}),
        licence="CC BY 4.0",
        source=Hub(
            "nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
            split="train",
            options=(
                ("data_files", "refusals_train.json"),
                ("revision", "d86bb8bedff51d25ac834ab7838f1cc61acb7a2c"),
            ),
        ),
        files=("refusals_train.json",),
        counts=Counts(examples=5000, tokens=150),  # the number as published, the tokens estimated
        examples=aegis_refusals,
    ),
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
