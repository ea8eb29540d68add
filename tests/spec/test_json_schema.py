"""Editors get a schema that knows every field and accepts every sweep that comes with the repository."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from safecomm.spec.json_schema import FILE, FIRST_LINE, sweep_schema

SWEEPS = Path(__file__).parents[2] / "sweeps"
SCHEMA = sweep_schema()


class Loader(yaml.SafeLoader):
    """Reads `3e-3` as a number, as editors do, which follow YAML 1.2."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader)


def errors(sweep: Any) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(sweep)]


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.name)
def test_bundled_sweeps_name_the_schema_and_follow_it(path: Path) -> None:
    assert path.read_text().splitlines()[0] == FIRST_LINE
    assert errors(read(path)) == []


def test_the_file_beside_the_sweeps_is_current() -> None:
    assert json.loads((SWEEPS / FILE).read_text()) == SCHEMA, "run: safecomm schema > sweeps/sweep.schema.json"


def test_mistakes_are_marked_where_they_are() -> None:
    lab = read(SWEEPS / "lab.yaml")
    assert errors(lab | {"seed": 1}) == ["$"]
    assert errors(lab | {"seeds": "two"}) == ["$.seeds"]
    assert "$.arms.x[0]" in " ".join(errors(lab | {"arms": {"x": [{"safe_lroa": {}}]}}))


def test_descriptions_are_those_of_the_fields() -> None:
    assert SCHEMA["properties"]["seeds"]["description"].startswith("Number of seeds")
