"""Command line and sweep file agree with the defenses' settings classes."""

import subprocess
import sys

import pytest
import typer

from safecomm.cli import app
from safecomm.cli.realign_options import PER_TYPE, is_level
from safecomm.defenses import DEFENSES, Realignment
from safecomm.search.stopping_rule import RULES
from safecomm.search.study import SAMPLERS
from safecomm.spec import Sweep
from safecomm.spec.judges import PHRASES
from safecomm.spec.search import ALGORITHMS
from safecomm.spec.search import RULES as RULE_NAMES

REALIGNMENTS = [name for name, defense in DEFENSES.items() if issubclass(defense, Realignment)]
COMMANDS = typer.main.get_command(app).commands["realign"].commands  # type: ignore[attr-defined]


def words(text: str | None) -> str:
    return " ".join((text or "").replace("`", "").split())


def test_every_realignment_is_a_command() -> None:
    assert {name.replace("_", "-") for name in REALIGNMENTS} == set(COMMANDS) - {"full-weights"}


@pytest.mark.parametrize("name", REALIGNMENTS)
def test_options_match_settings_help_and_defaults(name: str) -> None:
    command, fields = COMMANDS[name.replace("_", "-")], DEFENSES[name].model_fields
    options = {option.name: option for option in command.params}
    assert list(fields) == [option for option in options if option in fields]
    assert words(command.help) == words(DEFENSES[name].__doc__)
    for setting, field in fields.items():
        option = options[setting]
        assert option.help.removesuffix(PER_TYPE).strip() == words(field.description)
        assert option.required == field.is_required()
        assert option.required or option.default == field.default, setting
        assert option.opts == [f"--{setting.replace('_', '-')}"]
        assert option.help.endswith(PER_TYPE) == is_level(setting)


def test_terminal_help_matches_settings() -> None:
    command = [sys.executable, "-m", "safecomm", "realign", "safe-merge", "--help"]
    shown = words(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for field in DEFENSES["safe_merge"].model_fields.values():
        assert words(field.description) in shown


def test_sweep_schema_has_every_setting() -> None:
    sections = Sweep.model_json_schema()["$defs"]
    assert set(sections["Defenses"]["properties"]) == set(DEFENSES)
    for defense in DEFENSES.values():
        properties = sections[defense.__name__]["properties"]
        assert {name: words(one["description"]) for name, one in properties.items()} == {
            name: words(field.description) for name, field in defense.model_fields.items()
        }


def test_registry_names_match_class_names() -> None:
    assert {name: defense.name for name, defense in DEFENSES.items()} == {name: name for name in DEFENSES}


def test_sweep_names_match_registries() -> None:
    from safecomm.judging.judges import JUDGES

    assert set(ALGORITHMS) == {*SAMPLERS, "grid"}
    assert set(RULE_NAMES) == set(RULES)
    assert set(PHRASES) == set(JUDGES)
