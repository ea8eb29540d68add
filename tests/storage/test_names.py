"""Each file name is defined in one place, so that readers and writers agree."""

import ast
from pathlib import Path

from safecomm.storage import names

NAMES = {value for name, value in vars(names).items() if name.isupper()} - {names.RECORDS}  # "trials" is also a word
PACKAGE = Path(names.__file__).parents[1]


def test_no_other_module_repeats_a_file_name() -> None:
    spelled = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for path in PACKAGE.rglob("*.py")
        if path != Path(names.__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in NAMES
    ]
    assert "lineage.json" in NAMES and not spelled
