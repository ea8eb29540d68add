"""How a sweep names its judges."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from safecomm.spec.space import Strict

PHRASES = ("refusal", "compliance")
GUARDS = {"llama-guard-3": "meta-llama/Llama-Guard-3-8B"}
"""Known guard models, by the name that stands for them."""


class JudgeRef(Strict):
    """A judge: `refusal` (looks for refusal phrases), `compliance` (for the lab's steps), or a guard model.

    A guard reads the exchange through its own chat template and answers `safe` or `unsafe`. `llama-guard-3` is short
    for `{name: llama-guard-3, guard: meta-llama/Llama-Guard-3-8B}`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """What its verdicts are called."""
    guard: str | None = None
    """The guard model: a folder, a hub id, or `lab://guard`."""

    @model_validator(mode="after")
    def guards_have_a_model(self) -> Self:
        """Refuses names of no phrase judge without a model, and models for phrase judges."""
        if (self.name in PHRASES) == (self.guard is not None):
            raise ValueError(f"{', '.join(PHRASES)} need no model; any other judge needs `guard:`, a model")
        return self


def _named(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in PHRASES and value not in GUARDS:
        raise ValueError(
            f"there is no judge {value!r}; take one of {', '.join([*PHRASES, *GUARDS])}, or {{name: ..., guard: MODEL}}"
        )
    return {"name": value, "guard": GUARDS.get(value)}


Judge = Annotated[JudgeRef, BeforeValidator(_named)]
