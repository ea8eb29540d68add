"""The options of `safecomm realign`: a defense's inputs, and its settings with help and defaults."""

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from safecomm.defenses.defense import Defense, Need, Realignment, Selecting
from safecomm.errors import UsageError

MODEL = "a folder of safetensors, a hub id, or lab://base and lab://aligned"
Base = Annotated[str, typer.Option(help=f"The model before its alignment: {MODEL}.")]
Aligned = Annotated[str, typer.Option(help=f"The aligned model, on which the adapter was trained: {MODEL}.")]
AdapterFolder = Annotated[Path, typer.Option("--adapter", help="The fine-tuned LoRA adapter: a PEFT folder.")]
SafeAdapter = Annotated[Path, typer.Option(help="The adapter tuned on safety data only: a PEFT folder.")]
SafetyData = Annotated[
    str,
    typer.Option(
        help="Safe answers to harmful prompts: a safety set, or your own file with its columns. 128 are used.",
        metavar="NAME[=FILE[:PROMPT:RESPONSE]]",
    ),
]
Out = Annotated[Path, typer.Option(help="The new output folder.")]
PER_TYPE = "One value, or one per module type: q_proj=VALUE,v_proj=VALUE."
SUBJECT: dict[str, Any] = {
    "base": Base,
    "aligned": Aligned,
    "adapter": AdapterFolder,
    "safe_adapter": SafeAdapter,
    "safety_data": SafetyData,
}
OPTIONS: dict[Need, tuple[str, ...]] = {
    "adapter": ("adapter",),
    "profile": ("base", "aligned", "adapter"),
    "safe": ("safe_adapter",),
    "base": ("base",),
    "aligned": ("aligned",),
    "moments": ("aligned", "adapter", "safety_data"),
}
"""A defense's need -> the options for it."""


def with_options(defense: type[Realignment], command: Callable[..., None]) -> Callable[..., None]:
    """Returns a function for Typer with a defense's options.

    Args:
        defense: the defense.
        command: the function to call, with the options as keyword arguments.
    """

    def call(**options: Any) -> None:
        command(**options)

    given = {option for need in defense.needs for option in OPTIONS[need]}
    options = {name: (option, ...) for name, option in SUBJECT.items() if name in given}
    options |= {"out": (Out, ...)} | dict(setting_options(defense))
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=inspect.Parameter.empty if default is ... else default,
        )
        for name, (annotation, default) in options.items()
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {name: annotation for name, (annotation, _) in options.items()}
    call.__doc__ = defense.__doc__
    return call


def setting_options(defense: type[Defense]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yields the option and the default of each setting; the default is `...` if the setting is required."""
    for name, field in defense.model_fields.items():
        text = " ".join((field.description or "").replace("`", "").split())
        if is_level(name):
            text = f"{text} {PER_TYPE}"
        default = ... if field.is_required() else field.default
        kind = _type(name, field)
        yield name, (Annotated[kind | None if default is None else kind, typer.Option(help=text)], default)


def read_settings(defense: type[Defense], options: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings among a command's options, except for omitted ones without a default."""
    given = {name: options[name] for name in defense.model_fields if options[name] is not None}
    return {name: level(name, value) if is_level(name) else value for name, value in given.items()}


def is_level(name: str) -> bool:
    """Returns whether a setting is a selection criterion, with one value or one per module type."""
    return name in Selecting.model_fields


def level(way: str, text: str) -> float | dict[str, float]:
    """Reads `0.6`, or `q_proj=0.6,v_proj=0.85`.

    Raises:
        UsageError: if it is neither, or names a module type twice.
    """
    option = f"--{way.replace('_', '-')}"
    try:
        if "=" not in text:
            return _finite(text)
        pairs = [(kind.strip(), _finite(value)) for kind, value in (part.split("=") for part in text.split(","))]
    except ValueError as error:
        raise UsageError(f"{option} {text:.100}: must be a number, or q_proj=NUMBER,v_proj=NUMBER") from error
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"{option} {text:.100}: a module type is given twice; remove one")
    return dict(pairs)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _type(name: str, field: FieldInfo) -> Any:
    """Returns the type of a setting's constant value, without the search spaces."""
    if is_level(name):
        return str
    found = set(_plain(field.annotation))
    return next(kind for kind in (str, float, int) if kind in found)


def _plain(annotation: Any) -> Iterator[type]:
    if get_origin(annotation) is Literal or annotation is str:
        yield str
    elif annotation in (int, float):
        yield annotation
    elif not (isinstance(annotation, type) and annotation is not type(None)):
        for inner in get_args(annotation):
            yield from _plain(inner)
