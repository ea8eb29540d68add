"""The JSON Schema of sweep files, with which editors complete and check them."""

from typing import Any

from safecomm.spec.sweep import Sweep

FILE = "sweep.schema.json"
"""The schema's file beside the sweeps that come with the repository."""
FIRST_LINE = f"# yaml-language-server: $schema={FILE}"
"""The first line of those sweeps, by which editors find it."""


def sweep_schema() -> dict[str, Any]:
    """Returns the JSON Schema; it accepts everything that a sweep may contain, and not only what is valid."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Sweep.model_json_schema()}
