"""Texts in CSV files that people open in spreadsheets, which run cells that start like a formula."""

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_cell(value: Any) -> Any:
    """Returns a text that a spreadsheet shows as it is; other values are unchanged."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def from_cell(text: str) -> str:
    """Returns the text that `as_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text
