"""A fine-tune resumes from the last complete checkpoint."""

from pathlib import Path

import pytest

from safecomm.finetune.checkpoints import drop_incomplete

WHOLE = ("rng_state_0.pth", "rng_state_1.pth", "trainer_state.json")


@pytest.mark.parametrize("missing", [*WHOLE, "the end of trainer_state.json"])
def test_an_incomplete_checkpoint_of_a_dead_rank_is_ignored(tmp_path: Path, missing: str) -> None:
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in WHOLE:
            (folder / name).write_text("{}")
    (folder / "trainer_state.json").write_text("{")
    if missing in WHOLE:
        (folder / "trainer_state.json").write_text("{}")
        (folder / missing).unlink()
    drop_incomplete(tmp_path, ranks=2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]
