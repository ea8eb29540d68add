"""A plan knows patches: they share a fine-tune, and their example must be there."""

from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.errors import DataError
from safecomm.plan.data import check_safety_data, training_tokens
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import Sweep


def sweep(tmp_path: Path, settings: dict[str, Any], **finetune: Any) -> Sweep:
    section = LEAST | {"arms": {"one": [{"one_shot": settings}]}, "storage": str(tmp_path)}
    return Sweep.model_validate(section | {"finetune": LEAST["finetune"] | finetune})


def test_patches_of_one_fine_tune_are_trained_on_its_data_once(tmp_path: Path) -> None:
    patched = sweep(tmp_path, {"example": {"grid": [0, 1, 2]}})
    trials = fine_tunes(patched, EquivalentPoints(patched, ProfileCache(patched)))
    assert len(trials) == 4
    assert training_tokens(patched, trials) == training_tokens(patched, trials[:1])


def test_an_example_beyond_the_safety_data_is_refused(tmp_path: Path) -> None:
    few = {"safety_data": {"name": "lab-safety", "limit": 50}}
    enough, beyond = (sweep(tmp_path, {"example": example}, **few) for example in (49, {"randint": [0, 50]}))
    check_safety_data(enough, fetch=False)
    with pytest.raises(DataError, match=r"safety_data: has 50 examples, but arms\.one \(one_shot\) needs 51"):
        check_safety_data(beyond, fetch=False)
