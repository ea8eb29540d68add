"""The cells of a table of answers as Python values."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def text_in(cell: object) -> str:
    """Returns a cell's text; an empty string for a missing value."""
    return cell if isinstance(cell, str) else ""


def list_in(cell: object) -> list[Any]:
    """Returns a cell as a list; pandas stores lists as arrays, or as a missing value if there is none."""
    return list(cell) if isinstance(cell, list | tuple | np.ndarray) else []


def likeliest_option(row: Mapping[str, Any]) -> str:
    """Returns the option with the highest likelihood; an empty string if the options were not compared."""
    options, scores = list_in(row.get("options")), list_in(row.get("scores"))
    return str(options[scores.index(max(scores))]) if scores and len(scores) == len(options) else ""


def plain(value: Any) -> Any:
    """Converts a numpy number or array to a JSON value, as the argument `default` of `json.dumps`."""
    return value.tolist()
