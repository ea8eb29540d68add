"""The `arms` section: chains of defenses and their settings."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import (
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    SerializationInfo,
    SerializeAsAny,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from safecomm.defenses.defense import Defense
from safecomm.defenses.registry import DEFENSES, defense_of
from safecomm.defenses.space import Strict, searched
from safecomm.errors import suggestion
from safecomm.storage.own_code import as_value_error, is_dotted

ORIGINAL, UNDEFENDED = REFERENCE_ARMS = ("original", "undefended")
"""The aligned model itself, and the model fine-tuned without a defense."""


class Step(Strict):
    """One step of an arm: a defense and its settings, `{safe_lora: {lowest: 7}}`."""

    reference: str
    """The defense's name, or the dotted name of the user's class."""
    settings: SerializeAsAny[Defense]
    """Its settings."""

    @model_validator(mode="before")
    @classmethod
    def one_defense_a_step(cls, value: Any) -> Any:
        """Reads `{name: settings}`; rejects a step without exactly one known defense."""
        if isinstance(value, dict) and set(value) == set(cls.model_fields):
            return value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"each step must name exactly one of {', '.join(DEFENSES)}")
        (reference,) = value
        if not is_dotted(reference) and reference not in DEFENSES:
            known = f"use one of {', '.join(DEFENSES)}, or add your own to the sweep's `defenses`"
            raise ValueError(f"there is no defense {reference!r}{suggestion(reference, DEFENSES) or f'; {known}'}")
        with as_value_error():
            section = _section(reference, defense_of(reference))
        return {"reference": reference, "settings": getattr(section.model_validate(value), reference)}

    @model_serializer(mode="plain")
    def as_written(self, info: SerializationInfo) -> dict[str, Any]:
        """Returns the step in the form of the sweep file."""
        return {self.reference: self.settings.model_dump(mode=info.mode, exclude_none=info.exclude_none)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Returns a schema with all defenses, for editors of sweep files."""
        return handler(_sections(DEFENSES, default=None).__pydantic_core_schema__)

    @property
    def name(self) -> str:
        """The defense's name."""
        return self.settings.name

    @property
    def trains(self) -> bool:
        """Whether it acts during the fine-tune rather than on the finished adapter."""
        return self.settings.trains


@lru_cache
def _section(reference: str, defense: type[Defense]) -> type[BaseModel]:
    """Returns the model of a step with one defense; making one takes 10 ms, and a report reads the steps often."""
    return _sections({reference: defense})


def _sections(defenses: dict[str, type[Defense]], default: Any = ...) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (defense if default is ... else defense | None, Field(default, description=_first_line(defense)))
        for name, defense in defenses.items()
    }
    return create_model("Defenses", __base__=Strict, __doc__=Step.__doc__, **fields)


def _first_line(defense: type[Defense]) -> str:
    return (defense.__doc__ or "").partition("\n")[0]


def by_own_names(steps: Any, own: dict[str, str]) -> Any:
    """Returns an unparsed chain with the names of the user's defenses replaced by their dotted names."""
    if not isinstance(steps, list):
        return steps
    return [{own.get(key, key): value for key, value in s.items()} if isinstance(s, dict) else s for s in steps]


def dimensions(arm: Sequence[Step]) -> dict[str, Strict]:
    """Returns the searched settings of an arm: `defense.setting` -> search space."""
    return {
        key: space
        for step in arm
        for setting, value in step.settings
        for key, space in searched(f"{step.name}.{setting}", value).items()
    }
