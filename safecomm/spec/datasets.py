"""How a sweep names its datasets."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from safecomm.data.registry import DATASETS
from safecomm.spec.space import Strict


class DatasetRef(Strict):
    """A dataset of `safecomm data list`, from where it lives or from a local copy.

    A bare name is short for `{name: ...}`.
    """

    name: str
    """The dataset's name in `safecomm data list`."""
    path: str | None = None
    """A local file or folder in the dataset's own format; without it the dataset comes from its hub or is generated."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only this many rows, drawn by a fixed seed."""

    @field_validator("name")
    @classmethod
    def name_is_known(cls, name: str) -> str:
        """Refuses names that the registry lacks."""
        if name not in DATASETS:
            raise ValueError(f"there is no dataset {name!r}; `safecomm data list` shows: {', '.join(sorted(DATASETS))}")
        return name


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Dataset = Annotated[DatasetRef, BeforeValidator(_named)]


def with_role(role: str) -> AfterValidator:
    """Limits a dataset to those that can serve as something, e.g. as `red_team`."""

    def check(dataset: DatasetRef) -> DatasetRef:
        if role not in DATASETS[dataset.name].roles:
            fitting = ", ".join(sorted(name for name, entry in DATASETS.items() if role in entry.roles))
            raise ValueError(f"{dataset.name} can't serve as {role} data; these can: {fitting}")
        return dataset

    return AfterValidator(check)


TrainData = Annotated[Dataset, with_role("train")]
SafetyData = Annotated[Dataset, with_role("safety")]
