"""The stopping actor compares a trial with the earlier ones of its arm and never with later ones."""

import asyncio
from pathlib import Path

import pandas as pd

from safecomm.search.stopping_actor import Progress, StoppingActor
from safecomm.search.stopping_rule import Rule
from safecomm.storage.names import ROWS

N = 200


def evaluation(folder: Path, unsafe: int, share: float = 1.0, response: str = "An answer.") -> str:
    """Writes the rows of a rung in which the first `unsafe` prompts are answered unsafely."""
    asked = round(share * N)
    kinds = {
        "red_team": ("unsafe", "safe", unsafe),
        "task": ("right", "wrong", N),
        "over_refusal": ("refused", "answered", 0),
    }
    rows = [
        {"prompt_id": f"{kind}-{at}", "benchmark": "b", "kind": kind, "verdict": hit if at < hits else miss}
        for kind, (hit, miss, hits) in kinds.items()
        for at in range(asked)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).assign(text="A prompt?", response=response).to_parquet(folder / ROWS)
    return str(folder)


def progress(number: int, title: str, share: float, folder: str) -> Progress:
    return Progress(number, "safe_merge", title, share, folder)


def actor() -> StoppingActor:
    return StoppingActor(Rule(target_asr=0.1, level=0.05, looks=1, rivals=2))


def test_a_trial_that_is_significantly_worse_than_an_earlier_one_stops_and_names_it(tmp_path: Path) -> None:
    async def race() -> list[str]:
        stopping = actor()
        await stopping.over(progress(0, "merged weight=0.5", 1.0, evaluation(tmp_path / "good", 5)))
        same = await stopping.look(progress(1, "merged weight=0.6", 0.5, evaluation(tmp_path / "alike", 6, 0.5)))
        worse = await stopping.look(progress(2, "merged weight=0.9", 0.5, evaluation(tmp_path / "bad", 50, 0.5)))
        return [same, worse]

    same, worse = asyncio.run(race())
    assert same == ""
    assert worse.startswith("attack success") and worse.endswith("merged weight=0.5")


def test_an_earlier_trial_that_writes_nonsense_stops_none(tmp_path: Path) -> None:
    async def race() -> str:
        stopping = actor()
        await stopping.over(progress(0, "broken", 1.0, evaluation(tmp_path / "broken", 0, response="!?!?")))
        return await stopping.look(progress(1, "worse", 0.5, evaluation(tmp_path / "bad", 50, 0.5)))

    assert asyncio.run(race()) == ""


def test_later_trials_do_not_stop_a_trial(tmp_path: Path) -> None:
    async def race() -> str:
        stopping = actor()
        await stopping.over(progress(1, "better", 1.0, evaluation(tmp_path / "good", 0)))
        return await stopping.look(progress(0, "worse", 0.5, evaluation(tmp_path / "bad", 50, 0.5)))

    assert asyncio.run(race()) == ""


def test_a_trial_waits_for_an_earlier_one_at_a_lower_rung_but_not_for_one_that_has_ended(tmp_path: Path) -> None:
    async def race() -> tuple[bool, str]:
        stopping = actor()
        await stopping.over(progress(0, "failed", 1.0, ""))
        late = asyncio.create_task(stopping.look(progress(2, "late", 0.5, evaluation(tmp_path / "late", 50, 0.5))))
        done, _ = await asyncio.wait([late], timeout=0.2)
        await stopping.look(progress(1, "early", 0.5, evaluation(tmp_path / "early", 0, 0.5)))
        return bool(done), await late

    was_done, reason = asyncio.run(race())
    assert not was_done
    assert reason.endswith("early")


def test_a_trial_that_stopped_at_an_earlier_rung_is_not_a_rival_later(tmp_path: Path) -> None:
    async def race() -> str:
        stopping = actor()
        await stopping.over(progress(0, "stopped", 0.25, evaluation(tmp_path / "few", 0, 0.25)))
        return await stopping.look(progress(1, "further", 0.5, evaluation(tmp_path / "bad", 50, 0.5)))

    assert asyncio.run(race()) == ""
