"""References to datasets in a sweep."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from safecomm.data.catalog.registry import DATASETS, entry_of
from safecomm.data.custom import Columns
from safecomm.data.dataset import Dataset as Entry
from safecomm.defenses.space import LocalPath, Seed, Strict
from safecomm.errors import suggestion
from safecomm.spec.attacks import AttackRef
from safecomm.storage.own_code import as_value_error, is_dotted, short_name

COLUMNS = {"prompt", "category", "choices", "answer", "first_option", "reference", "response"}


def _is_slice(text: str) -> str:
    number, of = map(int, text.split("/"))
    if not 1 <= number <= of:
        raise ValueError(f"slice {text} does not exist; use 1/{of} to {of}/{of}")
    return text


Slice = Annotated[str, Field(pattern=r"^\d{1,3}/\d{1,3}$"), AfterValidator(_is_slice)]


class DatasetRef(Strict):
    """A dataset in `safecomm data list`, downloaded or from a local copy, or your own file.

    A bare name is short for `{name: ...}`. With `prompt`, a CSV, JSON, JSON Lines or Parquet file at `path` becomes a
    benchmark with any name: `{name: acme, path: acme.csv, prompt: question}`; with `response` as well, a training set.
    """

    name: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    """The dataset's name in `safecomm data list`, or a name for your own file."""
    own: Annotated[str | None, Field(exclude_if=lambda own: own is None)] = None
    """A `Dataset` in your own code, `my_package.my_module:MY_DATASET`; the bare dotted name is short for it."""
    path: LocalPath | None = None
    """A local file or folder in the dataset's original format. By default the dataset is downloaded or generated."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Use only this many rows, sampled with a fixed seed."""
    slice: Annotated[Slice | None, Field(exclude_if=lambda part: part is None)] = None
    """For training: use only one of several random slices of the rows, e.g. `1/4`. The slices of a set have no row in
    common, so each can be a generation of `drift`."""

    prompt: str | None = None
    """In your own file: the column with the prompt or question."""
    category: str | None = None
    """In your own file: the column with the category."""
    choices: str | tuple[str, ...] | None = None
    """For multiple choice: the column with the list of options, or one column per option."""
    answer: str | None = None
    """For multiple choice: the column with the correct option's number, letter or text."""
    first_option: Literal[0, 1] = 0
    """The number of the first option, if answers are numbers."""
    reference: str | None = None
    """For free-form task questions: the column with the reference answer, used by `evaluate.grader`."""
    response: Annotated[str | None, Field(exclude_if=lambda response: response is None)] = None
    """For training: the column with the answer to train on."""
    shuffle_options: Seed | None = None
    """A seed for shuffling the options of multiple-choice questions."""

    attack: Annotated[AttackRef | None, Field(exclude_if=lambda attack: attack is None)] = None
    """For red-team benchmarks: ask the prompts in a way that gets around shallow safety training, e.g. `prefill`. The
    result is a benchmark of its own, beside the plain one if that is listed too."""

    @model_validator(mode="after")
    def dataset_is_known(self) -> Self:
        """Rejects unknown names and incomplete descriptions of files."""
        if self.own is not None:
            return self._own_is_a_dataset(self.own)
        if self.prompt is None:
            if self.category or self.choices or self.answer or self.reference or self.response:
                raise ValueError(
                    "category, choices, answer, reference and response describe your own file; set prompt too"
                )
            if self.name not in DATASETS:
                hint = suggestion(self.name, DATASETS) or "; `safecomm data list` lists them"
                raise ValueError(f"there is no dataset {self.name!r}{hint}")
        elif self.path is None:
            raise ValueError("prompt names a column of your own file; set path too")
        elif (self.choices is None) != (self.answer is None):
            raise ValueError("multiple choice needs both choices and answer; set both")
        elif self.choices and self.reference:
            raise ValueError("set choices and answer for multiple choice, or reference for free-form answers, not both")
        return self

    def _own_is_a_dataset(self, own: str) -> Self:
        if given := sorted(self.model_dump(exclude_defaults=True).keys() & COLUMNS):
            raise ValueError(
                f"{given[0]} describes a file, but a dataset in your own code reads its columns itself; remove it"
            )
        if self.name in DATASETS:
            raise ValueError(f"{self.name} is a built-in dataset; choose another name")
        with as_value_error():
            entry_of(own)
        return self

    @model_validator(mode="after")
    def targets_are_there(self) -> Self:
        """Rejects an attack that starts answers with the benchmark's targets, if it has none."""
        if not (self.attack and self.attack.needs_targets):
            return self
        if self.prompt is not None or (self.path is None and self.entry.lacks_targets):
            raise ValueError(
                f"attack.prefill.text: {self.name} does not say what an obedient answer starts with; set a text of "
                "your own, e.g. 'Sure, here is how:'"
            )
        return self

    @property
    def benchmark(self) -> str:
        """The benchmark's name in results."""
        return f"{self.name}+{self.attack.label}" if self.attack else self.name

    @property
    def entry(self) -> Entry:
        """The dataset's registry entry; only for datasets without `prompt`."""
        return entry_of(self.own or self.name)

    @property
    def columns(self) -> Columns | None:
        """The columns of your own file, or None for a registered dataset."""
        if self.prompt is None:
            return None
        choices = (self.choices,) if isinstance(self.choices, str) else self.choices or ()
        return Columns(
            self.prompt, self.category, choices, self.answer, self.first_option, self.reference, self.response
        )


def _named(value: object) -> object:
    if is_dotted(value):
        return {"name": short_name(str(value)), "own": value}
    return {"name": value} if isinstance(value, str) else value


Dataset = Annotated[DatasetRef, BeforeValidator(_named, json_schema_input_type=DatasetRef | str)]


def with_role(role: str) -> AfterValidator:
    """Limits a field to datasets with a role, e.g. `red_team`."""

    def check(dataset: DatasetRef) -> DatasetRef:
        if dataset.attack and role != "red_team":
            raise ValueError("attack is for the benchmarks of evaluate.red_team; remove it")
        if dataset.slice and role not in ("train", "safety"):
            raise ValueError("slice is for training sets; use limit for a smaller benchmark")
        if dataset.prompt is not None:
            if (role in ("train", "safety")) != bool(dataset.response):
                raise ValueError(
                    f"{role} prompts have no answers to train on; remove response"
                    if dataset.response
                    else f"to use your own file as {role} data, set response to the column with the answers"
                )
            if (role == "task") != bool(dataset.choices or dataset.reference):
                raise ValueError(
                    "task questions need choices and answer, or reference"
                    if role == "task"
                    else f"{role} prompts have no choices or reference; remove these settings"
                )
            return dataset
        if role not in dataset.entry.roles:
            fitting = ", ".join(sorted(name for name, entry in DATASETS.items() if role in entry.roles))
            raise ValueError(f"{dataset.name} can't be used as {role} data; use one of: {fitting}")
        return dataset

    return AfterValidator(check)


TrainData = Annotated[Dataset, with_role("train")]
SafetyData = Annotated[Dataset, with_role("safety")]
