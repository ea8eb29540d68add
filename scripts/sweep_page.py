"""docs/sweep-file.md: every field of a sweep file, from the JSON Schema that `safecomm schema` prints."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from safecomm.defenses.registry import DEFENSES
from safecomm.defenses.space import SPACES
from safecomm.spec.json_schema import sweep_schema

HEAD = """\
# The sweep file, field by field

<!-- Generated from safecomm/spec by `make docs`; do not edit. -->

A sweep is a YAML file with the fields below. Unknown fields are refused, and all mistakes in a file are reported at
once. A field is optional unless its default is "required". [Write a sweep](sweeps.md) has an
example, and `safecomm schema` prints the same fields as a JSON Schema for editors.

"""
SPACE = """\
## Values to search

Where the type is "number to search", the value is one of:

| form | meaning |
|---|---|
| `0.5` | This number. |
| `grid: [0.3, 0.5]` | {grid} |
| `choice: [0.3, 0.5]` | {choice} |
| `uniform: [0.3, 0.9]` | {uniform} |
| `loguniform: [0.01, 1]` | {loguniform} |
| `randint: [1, 16]` | {randint} |
| `exact` | {exact} |

`exact` is for settings that select modules. These also take one value for each module type: `{{q_proj: 0.6, v_proj:
0.85}}`.
"""
Schema = dict[str, Any]
SHARED = {"DatasetRef": "Dataset", "JudgeRef": "Judge", "Replicas": "Engines"}
"""Headings of the sections to which several fields refer; any other such section gets the name of its class."""
DEFINED_ELSEWHERE = {
    "Step": "[steps](defenses.md)",
    **{space.__name__: "" for space in SPACES.values()},
    **{defense.__name__: "" for defense in DEFENSES.values()},
}


@dataclass
class Section:
    """A model of the sweep file, and the fields that take it."""

    name: str
    schema: Schema
    keys: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The heading: the dotted key, if there is only one."""
        return SHARED.get(self.name) or (self.keys[0] if len(self.keys) == 1 else self.name)

    @property
    def link(self) -> str:
        """A link to the section."""
        anchor = self.title.lower().replace(".", "").replace(" ", "-")
        return f"[{self.title.lower()}](#{anchor})"


def page() -> str:
    """Returns the page as Markdown."""
    schema = sweep_schema()
    sections = {name: Section(name, found) for name, found in schema["$defs"].items()}
    ordered = list(dict.fromkeys(_walk(schema, "", sections)))
    lines = [HEAD, *_table(schema, sections)]
    for name in ordered:
        section = sections[name]
        lines += [f"## {section.title}", "", section.schema["description"], ""]
        if len(section.keys) > 1:
            lines += [f"Used in: {', '.join(f'`{key}`' for key in section.keys)}.", ""]
        lines += _table(section.schema, sections)
    meanings = {name: " ".join(str(space.__doc__).split()) for name, space in SPACES.items()}
    return "\n".join([*lines, SPACE.format(**meanings)])


def _walk(schema: Schema, key: str, sections: dict[str, Section]) -> Iterator[str]:
    """Yields the names of all models below a model, each before its own, and notes the fields that take them."""
    for name, one in schema.get("properties", {}).items():
        for model in _models(one):
            dotted = f"{key}.{name}" if key else name
            first = not sections[model].keys
            sections[model].keys.append(dotted)
            if first:
                yield model
                yield from _walk(sections[model].schema, "" if model in SHARED else dotted, sections)


def _models(schema: Schema) -> Iterator[str]:
    """Yields the models that a field takes and that have a section here."""
    if "$ref" in schema and (name := schema["$ref"].rpartition("/")[2]) not in DEFINED_ELSEWHERE:
        yield name
    for part in _parts(schema):
        yield from _models(part)


def _parts(schema: Schema) -> list[Schema]:
    inner = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return [*schema.get("anyOf", []), *schema.get("oneOf", []), *inner]


def _table(schema: Schema, sections: dict[str, Section]) -> list[str]:
    lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, one in schema["properties"].items():
        default = "required" if name in schema.get("required", []) else _default(one.get("default"), one, sections)
        kind, meaning = (text.replace("|", "\\|") for text in (_kind(one, sections), _meaning(one)))
        lines.append(f"| `{name}` | {kind} | {default} | {meaning} |")
    return [*lines, ""]


def _meaning(schema: Schema) -> str:
    return " ".join(schema["description"].replace("\n- ", "<br>• ").split())


def _kind(schema: Schema, sections: dict[str, Section]) -> str:
    """Describes the values that a field takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return DEFINED_ELSEWHERE.get(name) or sections[name].link
    if "oneOf" in schema:
        return "[number to search](#values-to-search)"
    if "anyOf" in schema:
        return " or ".join(_kind(one, sections) for one in _alternatives(schema["anyOf"]))
    if values := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{value}`" for value in values)
    if schema["type"] == "array":
        inner = _kind(schema["items"], sections)
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    if schema["type"] == "object":
        values_of = schema.get("additionalProperties")
        return f"name: {_kind(values_of, sections)}" if isinstance(values_of, dict) else "settings"
    return {"string": "text", "boolean": "`true`, `false`"}.get(schema["type"]) or _number(schema)


def _alternatives(schemas: list[Schema]) -> list[Schema]:
    """Returns what a field may be, without the bare name that is short for a section; the section says so."""
    has_section = any("$ref" in one for one in schemas)
    left_out = ("null", "string") if has_section else ("null",)
    return [one for one in schemas if "enum" in one or one.get("type") not in left_out]


def _number(schema: Schema) -> str:
    """Returns e.g. `whole number, 1 to 512`."""
    name = "whole number" if schema["type"] == "integer" else "number"
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{name}, {_plain(low)} to {_plain(high)}"
    limits = {"from": low, "above": above, "up to": high, "below": below}
    said = " and ".join(f"{word} {_plain(limit)}" for word, limit in limits.items() if limit is not None)
    return f"{name} {said}".strip()


def _plain(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def _default(value: Any, schema: Schema, sections: dict[str, Section]) -> str:
    """Returns a default as it would be written; a section's is that of its fields."""
    if value is None:
        return ""
    if isinstance(value, dict) and any(_models(schema)):
        return "its defaults"
    return f"`{_written(_shortened(value, schema, sections))}`"


def _shortened(value: Any, schema: Schema, sections: dict[str, Section]) -> Any:
    """Returns a list without what its sections say anyway: `[{name: a, model: null}]` becomes `[a]`."""
    if not isinstance(value, list):
        return value
    models = [sections[name].schema["properties"] for name in _models(schema)]
    fields = {name: one.get("default") for model in models for name, one in model.items()}
    short = [{k: v for k, v in one.items() if v != fields[k]} if isinstance(one, dict) else one for one in value]
    return [one["name"] if isinstance(one, dict) and set(one) == {"name"} else one for one in short]


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
