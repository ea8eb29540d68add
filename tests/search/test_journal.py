"""Damage to Optuna's journal is one line that names it; the search goes on with the same proposals."""

import logging
from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.errors import SafecommError
from safecomm.search.study import ArmStudy
from safecomm.spec import Sweep

SPACE = {"lowest": {"choice": [1, 2, 3]}, "weight": {"uniform": [0.5, 0.9]}}


def study(journal: Path, space: dict[str, Any] = SPACE, **search: Any) -> ArmStudy:
    settings = LEAST | {"arms": {"merged": [{"safe_merge": space}]}, "search": {"trials": 9, **search}}
    return ArmStudy("merged", Sweep.model_validate(settings), journal)


def points(made: ArmStudy, start: int, count: int) -> list[dict[str, Any]]:
    """Returns proposals and reports their results, which a sweep has in its records."""
    proposals = made.proposals(start, count)
    for trial in proposals:
        made.tell(trial.number, [trial.params.get("safe_merge.weight", 0.5), 0.5, 0.1][: len(made._study.directions)])
    return [trial.params for trial in proposals]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    journal = tmp_path_factory.mktemp("whole") / "optuna.journal"
    points(study(journal), 0, 4)
    return journal.read_bytes()


DAMAGES = {
    "binary": lambda whole: b"\x00\xff\xfe" * 50,
    "binary lines": lambda whole: b"\x00\xff\xfe\n" * 50,
    "garbage within": lambda whole: whole[:300] + b"garbage\n" + whole[300:],
    "a line cut within": lambda whole: whole.replace(b'"op_code":', b"\n", 3),
    "its start is missing": lambda whole: whole[100:],
    "a line is missing": lambda whole: whole.partition(b"\n")[2],
    "other JSON": lambda whole: b"[1]\n" + whole,
    "no operation": lambda whole: b"{}\n",
    "nested": lambda whole: b"[" * 100_000 + b"\n",
    "a long number": lambda whole: b"9" * 5000 + b"\n",
    "NUL": lambda whole: b"\0" * 100 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_set_aside_and_made_again(
    damage: str, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "optuna.journal"
    expected = points(study(tmp_path / "expected"), 0, 4)
    journal.write_bytes(DAMAGES[damage](content))
    with caplog.at_level(logging.WARNING):
        assert points(study(journal), 0, 4) == expected
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("safecomm")]
    if damage in ("binary", "a line is missing"):  # a line cut short; lines of a study that was never begun
        assert warnings == []
        return
    (said,) = warnings
    assert str(journal) in said and "is damaged" in said and "going on from the trials' records" in said
    assert "\n" not in said
    (aside,) = tmp_path.glob("*-damaged-*/optuna.journal")
    assert aside.read_bytes() == DAMAGES[damage](content)
    assert points(study(journal), 0, 4) == expected


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_last_line_that_was_cut_is_dropped(kept: float, content: bytes, tmp_path: Path) -> None:
    """The next line would be glued to it, and the run after that could not read the journal."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cut.write_bytes(content[: int(kept * len(content))])
    expected = points(study(whole), 0, 6)
    assert points(study(cut), 0, 6) == expected == points(study(cut), 0, 6)
    assert list(tmp_path.glob("*damaged*")) == []


def test_an_empty_journal_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    assert points(study(tmp_path / "journal"), 0, 2) == points(study(tmp_path / "new"), 0, 2)


def test_a_folder_in_its_place_is_set_aside_too(tmp_path: Path) -> None:
    (tmp_path / "journal" / "x").mkdir(parents=True)
    assert len(points(study(tmp_path / "journal"), 0, 2)) == 2


def test_a_journal_that_can_not_be_moved_is_named(content: bytes) -> None:
    with pytest.raises(SafecommError, match=r"/proc/version: is damaged .* goes on from the trials' records"):
        study(Path("/proc/version"))


@pytest.mark.parametrize(
    "space",
    [
        SPACE | {"lowest": {"choice": [1, 2]}},
        SPACE | {"lowest": {"randint": [1, 9]}},
        SPACE | {"weight": 0.5},
        {"lowest": {"choice": [1, 2, 3]}, "weight": {"choice": [0.5, 0.6]}},
    ],
)
def test_other_choices_begin_another_study(space: dict[str, Any], content: bytes, tmp_path: Path) -> None:
    """Optuna refuses them with a ValueError that names neither the arm nor the setting."""
    journal = tmp_path / "journal"
    journal.write_bytes(content)
    expected = points(study(tmp_path / "new", space), 0, 5)
    assert points(study(journal, space), 0, 5) == expected == points(study(journal, space), 0, 5)
    assert len(points(study(journal), 0, 5)) == 5


def test_other_objectives_begin_another_study(content: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(content)
    assert len(points(study(journal, objectives=["asr", "accuracy"]), 0, 5)) == 5
