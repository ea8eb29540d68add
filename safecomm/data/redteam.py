"""Harmful prompts, for evaluation only."""

from collections.abc import Callable

from safecomm.data.dataset import Counts, Dataset
from safecomm.data.refusal import is_safe_in_xstest
from safecomm.data.rows import Loaded, Prompt
from safecomm.data.sources import GITHUB, RAW, Hub, Web
from safecomm.data.table import Raw, Table, collected, text_in

PROMPT = ("instruction", "goal", "prompt", "forbidden_prompt", "behavior", "turns", "question", "text")
"""Names of the prompt column in published datasets; the first match wins."""
CATEGORY = ("category", "semanticcategory", "type", "file")
CONTEXT = ("contextstring", "context")
"""Names of the column with the text that a contextual prompt refers to."""


def prompts(table: Table, name: str, use: Callable[[Raw], bool] | None = None) -> Loaded[Prompt]:
    """Returns harmful prompts with their category and target, if the table has them.

    Args:
        table: the rows as published.
        name: the benchmark's name.
        use: returns whether a row belongs to the benchmark.
    """
    text, category, target = table.column(PROMPT), table.find(CATEGORY), table.find(["target"])
    context = table.find(CONTEXT)

    def read(row: Raw) -> tuple[str, Prompt] | str:
        if use and not use(row):
            return "belongs to another part of the dataset"
        prompt = _in_context(_first_turn(row, text), text_in(row, context))
        return prompt, Prompt(name, "red_team", prompt, text_in(row, category), text_in(row, target) or None)

    return collected(table, read)


def _first_turn(row: Raw, column: str) -> str:
    """Returns the prompt; SORRY-Bench stores it as the first of a list of turns."""
    value = row.get(column)
    return text_in({column: value[0]}, column) if isinstance(value, list) and value else text_in(row, column)


def _in_context(prompt: str, context: str) -> str:
    """Returns a prompt with its context in HarmBench's format."""
    return f"{context}\n\n---\n\n{prompt}" if context and prompt else prompt


def _harmbench(part: str) -> Dataset:
    """Returns one of HarmBench's functional categories; they are separate because they are judged differently."""

    def belongs(row: Raw) -> bool:
        return text_in(row, "FunctionalCategory") == part if "FunctionalCategory" in row else True

    return Dataset(
        title=f"HarmBench, {part} behaviours",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="MIT",
        source=Web(
            f"{RAW}/centerforaisafety/HarmBench/main/data/behavior_datasets/harmbench_behaviors_text_all.csv",
            f"{GITHUB}/centerforaisafety/HarmBench",
        ),
        files=(
            "harmbench_behaviors_text_all.csv",
            "harmbench_behaviors_text_test.csv",
            "harmbench_behaviors_text_val.csv",
        ),
        prompts=lambda table, name: prompts(table, name, belongs),
    )


def _sorry_bench_base(row: Raw) -> bool:
    """Returns whether a row of SORRY-Bench is a base prompt rather than one of its 20 mutations."""
    return text_in(row, "prompt_style") in ("", "base")


SETS: dict[str, Dataset] = {
    "direct-harm-4": Dataset(
        title="DirectHarm4: 400 harmful instructions in four categories (arXiv 2402.18540)",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="Apache-2.0",
        source=Hub("vfleaking/DirectHarm4", split="test"),
        files=("directHarm4.csv",),
        counts=Counts(prompts=400),
        prompts=prompts,
    ),
    "hex-phi": Dataset(
        title="HEx-PHI: 300 harmful instructions in ten categories (arXiv 2310.03693)",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="HEx-PHI's own; access is granted manually",
        source=Hub(
            "LLM-Tuning-Safety/HEx-PHI", split="train", options=(("header", None), ("column_names", ["prompt"]))
        ),
        files=("category_*.csv",),
        counts=Counts(prompts=300),
        prompts=prompts,
    ),
    "teleharm": Dataset(
        title="TeleHarm: 125 harmful requests on telecommunications (arXiv 2506.00062)",
        roles=frozenset({"red_team"}),
        licence="see its page",
        source=Hub("aladinDJ/TeleHarm", split="train"),
        files=("*.csv", "*.parquet", "*.jsonl", "*.json"),
        counts=Counts(prompts=125),
        prompts=prompts,
    ),
    "advbench": Dataset(
        title="AdvBench: 520 harmful behaviours (arXiv 2307.15043)",
        roles=frozenset({"red_team"}),
        licence="MIT",
        source=Web(
            f"{RAW}/llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
            f"{GITHUB}/llm-attacks/llm-attacks",
        ),
        files=("harmful_behaviors.csv", "advbench-harmful-behaviors.csv"),
        counts=Counts(prompts=520),
        prompts=prompts,
    ),
    "harmbench": _harmbench("standard"),
    "harmbench-contextual": _harmbench("contextual"),
    "harmbench-copyright": _harmbench("copyright"),
    "strongreject": Dataset(
        title="StrongREJECT: 313 forbidden prompts in six categories (arXiv 2402.10260)",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="MIT",
        source=Web(
            f"{RAW}/alexandrasouly/strongreject/main/strongreject_dataset/strongreject_dataset.csv",
            f"{GITHUB}/alexandrasouly/strongreject",
        ),
        files=("strongreject_dataset.csv", "strongreject_small_dataset.csv"),
        prompts=prompts,
    ),
    "jailbreakbench": Dataset(
        title="JailbreakBench: 100 harmful behaviours (arXiv 2404.01318)",
        roles=frozenset({"red_team"}),
        licence="MIT",
        source=Hub("JailbreakBench/JBB-Behaviors", config="behaviors", split="harmful"),
        files=("harmful-behaviors.csv",),
        prompts=prompts,
    ),
    "sorry-bench": Dataset(
        title="SORRY-Bench: unsafe requests in 44 categories, unmutated (arXiv 2406.14598)",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="SORRY-Bench's own; gated",
        source=Hub("sorry-bench/sorry-bench-202503", split="train"),
        files=("question.jsonl", "*.parquet"),
        prompts=lambda table, name: prompts(table, name, _sorry_bench_base),
    ),
    "xstest-unsafe": Dataset(
        title="XSTest's 200 unsafe contrasts to its safe prompts (arXiv 2308.01263)",
        lacks_targets=True,
        roles=frozenset({"red_team"}),
        licence="CC BY 4.0",
        source=Hub("Paul/XSTest", split="train"),
        files=("xstest_prompts.csv", "xstest_v2_prompts.csv"),
        prompts=lambda table, name: prompts(table, name, lambda row: not is_safe_in_xstest(row)),
    ),
}
