"""Harmless prompts that a model should not refuse."""

from collections.abc import Callable

from safecomm.data.dataset import Counts, Dataset
from safecomm.data.rows import Loaded, Prompt
from safecomm.data.sources import Hub
from safecomm.data.table import Raw, Table, collected, text_in

PROMPT = ("prompt", "goal")


def prompts(table: Table, name: str, use: Callable[[Raw], bool] | None = None) -> Loaded[Prompt]:
    """Returns harmless prompts with their category.

    Args:
        table: the rows as published.
        name: the benchmark's name.
        use: returns whether a row is harmless.
    """
    text, category = table.column(PROMPT), table.find(["type", "category"])

    def read(row: Raw) -> tuple[str, Prompt] | str:
        if use and not use(row):
            return "not labelled safe"
        prompt = text_in(row, text)
        return prompt, Prompt(name, "over_refusal", prompt, text_in(row, category))

    return collected(table, read)


def is_safe_in_xstest(row: Raw) -> bool:
    """Returns whether a row of XSTest is one of its safe prompts.

    Early copies of version 2 have no `label`; in these, the types of unsafe prompts start with `contrast_`.
    """
    named = {column.strip().casefold(): column for column in row}
    if "label" in named:
        return text_in(row, named["label"]).casefold() == "safe"
    return not text_in(row, named.get("type")).startswith("contrast_")


def xstest(table: Table, name: str) -> Loaded[Prompt]:
    """Returns XSTest's safe prompts, with their type as category; its unsafe contrasts don't measure over-refusal."""
    table.column(["type"])
    return prompts(table, name, is_safe_in_xstest)


SETS: dict[str, Dataset] = {
    "xstest": Dataset(
        title="XSTest: 250 safe prompts that look unsafe (arXiv 2308.01263)",
        roles=frozenset({"over_refusal"}),
        licence="CC BY 4.0",
        source=Hub("Paul/XSTest", split="train"),
        files=("xstest_prompts.csv", "xstest_v2_prompts.csv"),
        counts=Counts(prompts=250),
        prompts=xstest,
    ),
    "or-bench-hard-1k": Dataset(
        title="OR-Bench: 1,319 safe prompts that models often refuse (arXiv 2405.20947)",
        roles=frozenset({"over_refusal"}),
        licence="CC BY 4.0",
        source=Hub("bench-llm/or-bench", config="or-bench-hard-1k", split="train"),
        files=("or-bench-hard-1k.csv",),
        counts=Counts(prompts=1319),
        prompts=prompts,
    ),
    "jailbreakbench-benign": Dataset(
        title="JailbreakBench: 100 benign behaviours on the themes of its harmful ones (arXiv 2404.01318)",
        roles=frozenset({"over_refusal"}),
        licence="MIT",
        source=Hub("JailbreakBench/JBB-Behaviors", config="behaviors", split="benign"),
        files=("benign-behaviors.csv",),
        prompts=prompts,
    ),
}
