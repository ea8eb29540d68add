"""docs/defenses.md: every defense with its settings, from the classes in safecomm/defenses/methods."""

from collections.abc import Iterator

from safecomm.defenses.defense import Defense, Realignment
from safecomm.defenses.registry import DEFENSES

HEAD = """\
# Defenses and their settings

<!-- Generated from safecomm/defenses/methods by `make docs`; do not edit. -->

An arm of a sweep is a chain of these steps. Steps that change the adapter are also available as commands, with the same
settings as options. [Extending safecomm](extending.md) shows how to add your own, and [Attacks](attacks.md#defenses)
what is implemented of each paper.
"""


def page() -> str:
    """Returns the page as Markdown."""
    return "\n".join([HEAD, *(line for defense in DEFENSES.values() for line in _section(defense))])


def _section(defense: type[Defense]) -> Iterator[str]:
    command = f"Command: `safecomm realign {defense.name.replace('_', '-')}`"
    usage = command if issubclass(defense, Realignment) else "Acts during training"
    yield from (f"## {defense.name}", "", " ".join(str(defense.__doc__).split()), "")
    yield from (f"{usage}. Needs: {', '.join(f'`{need}`' for need in defense.needs) or 'nothing'}.", "")
    yield from ("| setting | default | meaning |", "|---|---|---|")
    for name, field in defense.model_fields.items():
        default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
        yield f"| `{name}` | {default} | {' '.join(str(field.description).split())} |"
    yield ""
