"""Packages import only earlier ones, so that a reader meets each package before those that use it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1] / "safecomm"
LAYERS = (
    *("errors", "storage", "data", "data.lab", "data.catalog", "statistics", "defenses", "spec", "cluster"),
    *("finetune", "serving", "judging", "search", "plan", "report", "sweep", "selftest", "cli"),
)
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in ROOT.rglob("*.py")
    if path.parent != ROOT or not path.name.startswith("__")
}


def layer(module: str) -> int:
    """Returns the place of the innermost package that a module is in."""
    return LAYERS.index(max((name for name in LAYERS if f"{module}.".startswith(f"safecomm.{name}.")), key=len))


def imports(node: ast.AST) -> Iterator[str]:
    """Yields what a file imports of safecomm, also inside functions; not what only type checkers see."""
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names if name.name.startswith("safecomm."))
    elif isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("safecomm."):
        yield from (f"{node.module}.{name.name}" for name in node.names)
    elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from imports(child)


def test_no_package_imports_a_later_one() -> None:
    found = {module: list(imports(ast.parse(path.read_text(encoding="utf-8")))) for module, path in MODULES.items()}
    assert "safecomm.data.rows.Prompt" in found["safecomm.plan.data"], "imports are read"
    assert [(a, b) for a, imported in found.items() for b in imported if layer(b) > layer(a)] == []


def test_every_top_level_name_has_a_layer_and_there_are_at_most_sixteen() -> None:
    top = {module.split(".")[1] for module in MODULES}
    assert top == {name.split(".")[0] for name in LAYERS}
    assert len(top) <= 16


def test_the_documentation_describes_every_top_level_name() -> None:
    section = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    described = re.findall(r"`([a-z]+)`", section.partition("| folder |")[0])
    assert sorted(described) == sorted({name.split(".")[0] for name in LAYERS})
