"""Titles, verbs and directions of the metrics are defined in one table, from which everything else is derived."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from safecomm.data.rows import Kind
from safecomm.spec.search import Search
from safecomm.statistics.domain import TELECOM, domain_of
from safecomm.statistics.metric_table import ACCURACY, METRICS, MetricName, headings

PACKAGE = Path(__file__).parents[2] / "safecomm"
TABLE = PACKAGE / "statistics" / "metric_table.py"
TITLES = {metric.words(TELECOM) for metric in METRICS}


def literals(path: Path) -> Iterator[str]:
    """Yields a file's strings, including the parts of f-strings, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_other_file_contains_a_metrics_title() -> None:
    texts = {path: list(literals(path)) for path in PACKAGE.rglob("*.py") if path != TABLE}
    texts |= {path: [path.read_text(encoding="utf-8")] for path in PACKAGE.rglob("*.j2")}
    assert any("attack success" in text for text in literals(TABLE)), "literals are found"
    found = [
        (path.name, title)
        for path, strings in texts.items()
        for text in strings
        for title in TITLES
        if re.search(rf"(?<!-){title}", text.lower())  # `--max-over-refusal` is an option
    ]
    assert found == []


def test_every_kind_and_every_objective_has_its_metric() -> None:
    assert {metric.kind for metric in METRICS} == set(get_args(Kind))
    assert [metric.name for metric in METRICS] == list(get_args(MetricName)) == Search().objectives


@pytest.mark.parametrize(
    ("domain", "title", "tag", "question"),
    [
        ("telecom", "Telecom accuracy", "telecom", "a telecommunications question"),
        ("medical", "Medical accuracy", "medical", "a medical question"),
        ("automotive", "Automotive accuracy", "automotive", "an automotive question"),
        ("contract law", "Contract law accuracy", "contract-law", "a contract law question"),
    ],
)
def test_any_word_names_a_domain(domain: str, title: str, tag: str, question: str) -> None:
    found = domain_of(domain)
    assert (headings(found)["accuracy"], found.tag, found.question) == (title, tag, question)
    assert ACCURACY.axis_title(found) == f"{title} (higher is better)"
