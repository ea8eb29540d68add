"""Limits of the numbers on the command line."""

import math

import typer

MAX_SEED = (1 << 32) - 1
"""The largest seed that every random generator takes."""


def finite(number: float | None) -> float | None:
    """Rejects NaN, which is neither below a minimum nor above a maximum."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number:g} is not a finite number.")
    return number
