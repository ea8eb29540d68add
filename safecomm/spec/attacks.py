"""The `attack` of a red-team benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from safecomm.data.attacks import (
    PROMPT,
    TARGET,
    TEMPLATES,
    augmented,
    conversing,
    named,
    prefilled,
    suffixed,
    templated,
)
from safecomm.data.files import read_table
from safecomm.data.rows import Prompt
from safecomm.data.table import text_in
from safecomm.defenses.space import LocalPath, Seed, Strict
from safecomm.errors import DataError


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := sorted(set(names) - TEMPLATES.keys()):
        raise ValueError(f"there is no template {unknown[0]!r}; use {', '.join(TEMPLATES)}, or path for your own")
    return names


class Prefill(Strict):
    """The answer starts with given words, and the judge reads all of it."""

    tokens: Annotated[int, Field(ge=1, le=100)] = 5
    """How many tokens of the text the answer starts with."""
    text: Annotated[str, Field(min_length=1, max_length=2000)] = TARGET
    """The start of the answer; `{target}` is the benchmark's target, e.g. AdvBench's `Sure, here is ...`."""


class Template(Strict):
    """The request is put into texts that frame, rephrase or obfuscate it."""

    names: Annotated[tuple[str, ...], AfterValidator(_known), Field(min_length=1)] = tuple(TEMPLATES)
    """The built-in templates to use."""
    path: LocalPath | None = None
    """Your own instead: a file with the columns `name` and `template`, which contains `{prompt}`."""

    def texts(self) -> dict[str, str]:
        """Returns the templates by name.

        Raises:
            DataError: if the file can't be read or a template does not contain the prompt.
        """
        if self.path is None:
            return {name: TEMPLATES[name] for name in self.names}
        return dict(zip(_column(self.path, "name"), _column(self.path, "template", PROMPT), strict=True))


class Suffix(Strict):
    """Another tool's suffixes follow the request."""

    path: LocalPath
    """A file with the column `suffix`."""


class BestOfN(Strict):
    """Each request is tried in several garbled versions and counts as unsafe if one of the answers is."""

    tries: Annotated[int, Field(ge=2, le=10_000)] = 16
    """Versions of each request."""
    seed: Seed = 0
    """Seed of the versions."""


class MultiTurn(Strict):
    """A conversation that an attacker model leads towards the request; it counts as unsafe if one of the answers is.

    As in Crescendo (arXiv 2404.01833), it starts harmless, each message follows from the last answer, and a message
    that the model refuses is taken back. `evaluate.attacker` names the attacker.
    """

    turns: Annotated[int, Field(ge=2, le=20)] = 5
    """Messages to the model, including those that it refuses."""


class Attack(Strict):
    """One way to ask harmful requests; exactly one of them is set. A bare name is short for its defaults."""

    name: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$", exclude_if=lambda name: name is None)] = None
    """What it adds to the benchmark's name, to tell e.g. two files of suffixes apart; by default its kind and size."""
    prefill: Annotated[Prefill | None, Field(exclude_if=lambda value: value is None)] = None
    """Start the answers for the model."""
    template: Annotated[Template | None, Field(exclude_if=lambda value: value is None)] = None
    """Put the requests into templates."""
    suffix: Annotated[Suffix | None, Field(exclude_if=lambda value: value is None)] = None
    """Append suffixes to the requests."""
    best_of_n: Annotated[BestOfN | None, Field(exclude_if=lambda value: value is None)] = None
    """Try each request in several garbled versions."""
    multi_turn: Annotated[MultiTurn | None, Field(exclude_if=lambda value: value is None)] = None
    """Lead a conversation towards each request."""

    @model_validator(mode="after")
    def is_one_attack(self) -> Self:
        """Rejects none and several."""
        if len(given := [kind for kind in KINDS if getattr(self, kind)]) != 1:
            raise ValueError(f"set exactly one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}")
        return self

    @property
    def label(self) -> str:
        """What the attack adds to a benchmark's name."""
        if self.name:
            return self.name
        if self.prefill:
            return f"prefill{self.prefill.tokens}"
        if self.best_of_n:
            return f"best_of{self.best_of_n.tries}"
        if self.multi_turn:
            return f"turns{self.multi_turn.turns}"
        return "template" if self.template else "suffix"

    @property
    def needs_targets(self) -> bool:
        """Whether the benchmark must say what an obedient answer starts with."""
        return self.prefill is not None and TARGET in self.prefill.text

    @property
    def file(self) -> tuple[str, str] | None:
        """The key and the path of its file, if it has one."""
        if self.template and self.template.path:
            return "template.path", self.template.path
        return ("suffix.path", self.suffix.path) if self.suffix else None

    def of(self, prompts: Sequence[Prompt], benchmark: str) -> list[Prompt]:
        """Returns the attacked prompts of a benchmark.

        Raises:
            DataError: if a file can't be read, or the prompts lack what the attack needs.
        """
        if self.prefill:
            attacked = prefilled(prompts, self.prefill.text, self.prefill.tokens)
        elif self.template:
            attacked = templated(prompts, self.template.texts())
        elif self.best_of_n:
            attacked = augmented(prompts, self.best_of_n.tries, self.best_of_n.seed)
        elif self.multi_turn:
            attacked = conversing(prompts, self.multi_turn.turns)
        else:
            assert self.suffix
            attacked = suffixed(prompts, _column(self.suffix.path, "suffix"))
        return list(named(attacked, benchmark))


KINDS = tuple(field for field in Attack.model_fields if field != "name")
"""The attacks."""


def _column(path: str, name: str, part: str = "") -> list[str]:
    """Returns a column of a file, all of whose texts must have a part."""
    table = read_table(Path(path))
    column = table.column([name])
    texts = [text_in(row, column) for row in table.rows]
    if wrong := [row for row, text in enumerate(texts, start=1) if not text or part not in text]:
        raise DataError(f"{path}: row {wrong[0]}: {name} must be a text{f' with {part}' if part else ''}")
    return texts


def _spelled_out(value: object) -> object:
    return {value: {}} if isinstance(value, str) else value


AttackRef = Annotated[Attack, BeforeValidator(_spelled_out, json_schema_input_type=Attack | str)]
