"""Whatever a sweep file or an override holds, it is read or refused with a message; nothing else is raised."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from safecomm.errors import SpecError
from safecomm.spec import read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"
NASTY: list[Any] = [
    *(
        None,
        True,
        0,
        -1,
        10**30,
        2**64,
        0.1,
        -0.0,
        float("inf"),
        float("-inf"),
        float("nan"),
        "",
        " ",
        "\0",
        "x" * 5000,
    ),
    *("²", "../../x", "~no-such-user", "[/bold]", "{{ 1 }}", "a: b", "é", "\ud800", "lab://nothing", "http://[x"),
    *([], [[]], [None], {}, {"value": 1}, {"by type": 1}, {"grid": []}, {"grid": [None]}, {"uniform": [1, 0]}),
    *(
        {"exact": -1},
        {"randint": [0, 10**30]},
        {"name": None},
        {"name": "x", "path": ""},
        [{"safe_lora": None}],
        "a:b:c",
    ),
]
TEXTS = [
    *(
        "name: 2024-13-45",
        "name: !!int x",
        "name: !!bool x",
        'name: !!int ""',
        'name: !!float ""',
        "a: &a [*a]",
        "{" * 3000,
        "- " * 2000,
        "? x",
        "%YAML 9.9\n---\n",
        "\t- x",
        "a: b: c",
    ),
    *(
        "!!python/object:os.system x",
        "<<: *x",
        "seeds: " + "9" * 5000,
        "x: !!timestamp x",
        "\x00",
        "\ufeff",
        "--- a\n--- b",
    ),
]


def is_refused(path: Path, overrides: list[str]) -> bool:
    """Returns whether a sweep is refused, with a message; any other error fails the test."""
    try:
        read_sweep(path, overrides)
    except SpecError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        return True
    return False


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_that_can_not_be_constructed_is_one_message(text: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        read_sweep(path)
    assert is_refused(LAB, [f"name={text}", f"search.trials={text}"])


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def test_a_thousand_damaged_sweeps_are_read_or_refused(tmp_path: Path) -> None:
    rng, path, refused = random.Random(0), tmp_path / "sweep.yaml", 0
    text = LAB.read_text(encoding="utf-8")
    everywhere = places(yaml.safe_load(text))[1:]
    for at in range(1000):
        raw = yaml.safe_load(text)
        for place in rng.sample(everywhere, rng.choice([1, 1, 2])):
            node = raw
            try:
                for key in place[:-1]:
                    node = node[key]
                node[place[-1]] = rng.choice(NASTY)
            except (KeyError, TypeError, IndexError):
                continue  # the other change removed it
        lines = yaml.safe_dump(raw, allow_unicode=False).splitlines()
        if at % 3 == 0:
            position = rng.randrange(len(lines))
            lines[position] = rng.choice(
                [lines[position] * 2, lines[position][1:], "  " + lines[position], "", "- x", ":"]
            )
        path.write_text("\n".join(lines), encoding="utf-8")
        refused += is_refused(path, [])
    assert 500 < refused < 1000  # some damage is harmless


def test_three_hundred_odd_overrides_are_read_or_refused() -> None:
    rng = random.Random(1)
    keys = [".".join(map(str, place)) for place in places(yaml.safe_load(LAB.read_text(encoding="utf-8")))[1:]]
    odd = [*keys, "arms.x.0.y", "²", "evaluate.task.²", "evaluate.task.-1.name", ".", "a..b", "=", ""]
    values = [*TEXTS, *map(repr, NASTY)]
    refused = sum(is_refused(LAB, [f"{rng.choice(odd)}={rng.choice(values)}"]) for _ in range(300))
    assert 200 < refused < 300  # some values are valid for some keys
