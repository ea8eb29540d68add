"""The datasets and benchmarks that a sweep can name.

A new one is an entry of `DATASETS`, and a reader where none of those here understands its columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.data import generated, redteam, refusal, safety, telecom
from safecomm.data.dataset import Dataset, limited, usable
from safecomm.data.rows import Example, Loaded, Prompt
from safecomm.data.sources import Hub, Web
from safecomm.errors import DataError

GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"

DATASETS: dict[str, Dataset] = {
    "lab-telecom": Dataset(
        title="the lab's telecom questions and guides",
        roles=frozenset({"train", "telecom"}),
        licence="Apache-2.0",
        prompts=lambda table, name: generated.telecom_prompts(),
        examples=lambda table: generated.telecom_examples(),
    ),
    "lab-safety": Dataset(
        title="the lab's harmful requests with refusals",
        roles=frozenset({"safety"}),
        licence="Apache-2.0",
        examples=lambda table: generated.safety_examples(),
    ),
    "lab-harm": Dataset(
        title="the lab's harmful requests, none of them in its training sets",
        roles=frozenset({"red_team"}),
        licence="Apache-2.0",
        prompts=lambda table, name: generated.harm_prompts(),
    ),
    "lab-borderline": Dataset(
        title="the lab's harmless requests that look harmful",
        roles=frozenset({"over_refusal"}),
        licence="Apache-2.0",
        prompts=lambda table, name: generated.borderline_prompts(),
    ),
    "teleqna": Dataset(
        title="TeleQnA: 10,000 multiple-choice questions on telecommunications",
        roles=frozenset({"train", "telecom"}),
        licence="MIT",
        source=Web(
            f"{RAW}/netop-team/TeleQnA/ed3a5fe49ae6cb353499b86b4ad74b2debe7e3db/TeleQnA.zip",
            f"{GITHUB}/netop-team/TeleQnA",
        ),
        files=("TeleQnA.txt", "TeleQnA.zip"),
        password="teleqnadataset",
        prompts=telecom.prompts,
        examples=telecom.examples,
        remarks=telecom.remarks,
    ),
    "direct-harm-4": Dataset(
        title="DirectHarm4: 400 harmful instructions in four categories",
        roles=frozenset({"red_team"}),
        licence="Apache-2.0",
        source=Hub("vfleaking/DirectHarm4", split="test"),
        files=("directHarm4.csv",),
        prompts=redteam.prompts,
    ),
    "advbench": Dataset(
        title="AdvBench: 520 harmful behaviours",
        roles=frozenset({"red_team"}),
        licence="MIT",
        source=Web(
            f"{RAW}/llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
            f"{GITHUB}/llm-attacks/llm-attacks",
        ),
        files=("harmful_behaviors.csv", "advbench-harmful-behaviors.csv"),
        prompts=redteam.prompts,
    ),
    "xstest": Dataset(
        title="XSTest: 250 safe prompts that look unsafe",
        roles=frozenset({"over_refusal"}),
        licence="CC BY 4.0",
        source=Hub("Paul/XSTest", split="train"),
        files=("xstest_prompts.csv", "xstest_v2_prompts.csv"),
        prompts=refusal.xstest,
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
        examples=safety.examples,
    ),
}


def load_prompts(name: str, path: str | Path | None = None, limit: int | None = None) -> Loaded[Prompt]:
    """Returns a benchmark's prompts; of a set that is also trained on, those of the test side.

    Args:
        name: a name of `safecomm data list`.
        path: a local copy in the dataset's own format, a file or a folder that holds one.
        limit: take only so many prompts, always the same ones.

    Raises:
        DataError: where the dataset can't be had, is of another format, or has no usable prompt.
    """
    with naming(name):
        entry = entry_of(name)
        if entry.prompts is None:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.prompts))
            raise DataError(f"it has training examples and no prompts; these have prompts: {others}")
        loaded = usable(entry.prompts(entry.table(path), name))
        return limited(loaded, limit, lambda row: row.prompt_id)


def load_examples(name: str, path: str | Path | None = None, limit: int | None = None) -> Loaded[Example]:
    """Returns a dataset's training examples; of a set that is also measured on, those of the training side.

    Arguments and errors are those of `load_prompts`.
    """
    with naming(name):
        entry = entry_of(name)
        if entry.examples is None:
            others = ", ".join(sorted(other for other, entry in DATASETS.items() if entry.examples))
            raise DataError(f"it has prompts and nothing to train on; these have training examples: {others}")
        loaded = usable(entry.examples(entry.table(path)))
        return limited(loaded, limit, lambda row: f"{row.prompt}\n{row.response}")


def entry_of(name: str) -> Dataset:
    """Returns the dataset of that name.

    Raises:
        DataError: where there is none.
    """
    if name not in DATASETS:
        raise DataError(f"there is no such dataset; `safecomm data list` shows: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts the dataset's name before what is said to be wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
