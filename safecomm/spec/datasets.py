"""How a sweep names its datasets."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from safecomm.data.catalog.registry import DATASETS, entry_of
from safecomm.data.custom import Columns
from safecomm.data.dataset import Dataset as Entry
from safecomm.defenses.space import LocalPath, Strict
from safecomm.storage.own_code import as_value_error, is_dotted, short_name

COLUMNS = {"prompt", "category", "choices", "answer", "first_option", "reference"}


class DatasetRef(Strict):
    """A dataset of `safecomm data list`, from where it lives or from a local copy; or a benchmark of your own.

    A bare name is short for `{name: ...}`. With `prompt`, a CSV, JSON, JSON Lines or Parquet file at `path` becomes a
    benchmark of any name: `{name: acme, path: acme.csv, prompt: question}`.
    """

    name: str
    """The dataset's name in `safecomm data list`, or what a benchmark of your own is to be called."""
    own: Annotated[str | None, Field(exclude_if=lambda own: own is None)] = None
    """A `Dataset` of your own code, `my_package.my_module:MY_DATASET`; its dotted name alone is short for it."""
    path: LocalPath | None = None
    """A local file or folder in the dataset's own format; without it the dataset comes from its hub or is generated."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only this many rows, drawn by a fixed seed."""

    prompt: str | None = None
    """In a file of your own, the column of the prompt or question."""
    category: str | None = None
    """Its column of the category."""
    choices: str | tuple[str, ...] | None = None
    """For multiple choice: its column with the list of options, or the columns of the options."""
    answer: str | None = None
    """For multiple choice: its column of the right option's number, letter or text."""
    first_option: Literal[0, 1] = 0
    """The number of the first option, where answers are numbers."""
    reference: str | None = None
    """For task questions answered in words: its column of the right answer; `evaluate.grader` compares."""
    shuffle_options: int | None = None
    """A seed, to put the options of multiple-choice questions into another order."""

    @model_validator(mode="after")
    def dataset_is_known(self) -> Self:
        """Refuses names that the registry lacks, and half-told files."""
        if self.own is not None:
            return self._own_is_a_dataset(self.own)
        if self.prompt is None:
            if self.category or self.choices or self.answer or self.reference:
                raise ValueError("these columns are of a file of your own; name its column of the prompt too")
            if self.name not in DATASETS:
                known = ", ".join(sorted(DATASETS))
                raise ValueError(f"there is no dataset {self.name!r}; `safecomm data list` shows: {known}")
        elif self.path is None:
            raise ValueError("prompt tells the column of a file of your own; give its path")
        elif (self.choices is None) != (self.answer is None):
            raise ValueError("multiple choice needs both choices and answer")
        elif self.choices and self.reference:
            raise ValueError("give choices and answer for multiple choice, or reference for answers in words")
        return self

    def _own_is_a_dataset(self, own: str) -> Self:
        if given := sorted(self.model_dump(exclude_defaults=True).keys() & COLUMNS):
            raise ValueError(
                f"{given[0]} is for files of your own; a dataset of your own code reads its columns itself"
            )
        if self.name in DATASETS:
            raise ValueError(f"{self.name} is a dataset of safecomm; give your own another name")
        with as_value_error():
            entry_of(own)
        return self

    @property
    def entry(self) -> Entry:
        """What is known of the dataset; it has none where it is a file of your own."""
        return entry_of(self.own or self.name)

    @property
    def columns(self) -> Columns | None:
        """The columns of a file of your own; None for a known dataset."""
        if self.prompt is None:
            return None
        choices = (self.choices,) if isinstance(self.choices, str) else self.choices or ()
        return Columns(self.prompt, self.category, choices, self.answer, self.first_option, self.reference)


def _named(value: object) -> object:
    if is_dotted(value):
        return {"name": short_name(str(value)), "own": value}
    return {"name": value} if isinstance(value, str) else value


Dataset = Annotated[DatasetRef, BeforeValidator(_named)]


def with_role(role: str) -> AfterValidator:
    """Limits a dataset to those that can serve as something, e.g. as `red_team`."""

    def check(dataset: DatasetRef) -> DatasetRef:
        if dataset.prompt is not None:
            if role in ("train", "safety"):
                raise ValueError(f"a file of prompts can't serve as {role} data, which needs answers")
            if (role == "task") != bool(dataset.choices or dataset.reference):
                raise ValueError(
                    "task questions need choices and answer, or reference"
                    if role == "task"
                    else f"{role} prompts have no choices"
                )
            return dataset
        if role not in dataset.entry.roles:
            fitting = ", ".join(sorted(name for name, entry in DATASETS.items() if role in entry.roles))
            raise ValueError(f"{dataset.name} can't serve as {role} data; these can: {fitting}")
        return dataset

    return AfterValidator(check)


TrainData = Annotated[Dataset, with_role("train")]
SafetyData = Annotated[Dataset, with_role("safety")]
