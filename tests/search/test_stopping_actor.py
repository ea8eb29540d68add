"""The stopping actor compares a point with the earlier ones of its arm and never with later ones."""

import asyncio
from pathlib import Path

import pandas as pd
import pytest

from safecomm.search.stopping_actor import Candidate, Progress, StoppingActor
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
    return Progress(number, Candidate("safe_merge", title, range(number, number + 1)), share, folder)


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
        await stopping.over(progress(1, "early", 1.0, evaluation(tmp_path / "early-whole", 0)))
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


def seed(number: int, share: float, folder: str) -> Progress:
    """Returns the progress of a trial in a search with two seeds."""
    first = number - number % 2
    return Progress(number, Candidate("safe_merge", f"point {first}", range(first, first + 2)), share, folder)


def test_points_are_compared_by_their_means_over_seeds_and_all_seeds_of_a_point_stop(tmp_path: Path) -> None:
    async def race(unsafe: tuple[int, int]) -> list[str]:
        stopping, folder = actor(), tmp_path / str(unsafe)
        for number, hits in enumerate((10, 30)):  # 20 on average
            await stopping.over(seed(number, 1.0, evaluation(folder / str(number), hits)))
        looks = [
            stopping.look(seed(number, 0.5, evaluation(folder / str(number), hits, 0.5)))
            for number, hits in enumerate(unsafe, start=2)
        ]
        return await asyncio.gather(*looks)

    assert asyncio.run(race((60, 0))) == ["", ""]  # its first seed alone would lose
    first, second = asyncio.run(race((60, 60)))
    assert first == second and first.endswith("point 0")


def test_a_trial_waits_for_the_other_seeds_of_its_point(tmp_path: Path) -> None:
    async def race() -> tuple[bool, str]:
        stopping = actor()
        for number in (0, 1):
            await stopping.over(seed(number, 1.0, evaluation(tmp_path / str(number), 5)))
        first = asyncio.create_task(stopping.look(seed(2, 0.5, evaluation(tmp_path / "2", 60, 0.5))))
        done, _ = await asyncio.wait([first], timeout=0.2)
        second = await stopping.look(seed(3, 0.5, evaluation(tmp_path / "3", 60, 0.5)))
        assert second == await first
        return bool(done), second

    was_done, reason = asyncio.run(race())
    assert not was_done and reason.endswith("point 0")


def test_a_point_with_a_failed_seed_does_not_stop(tmp_path: Path) -> None:
    async def race() -> str:
        stopping = actor()
        for number in (0, 1):
            await stopping.over(seed(number, 1.0, evaluation(tmp_path / str(number), 0)))
        await stopping.over(seed(3, 1.0, ""))
        return await stopping.look(seed(2, 0.5, evaluation(tmp_path / "2", 60, 0.5)))

    assert asyncio.run(race()) == ""


def test_a_trial_whose_answers_are_gone_keeps_no_other_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def race() -> str:
        stopping = actor()
        await stopping.over(progress(0, "gone", 1.0, str(tmp_path / "gone")))
        return await stopping.look(progress(1, "next", 0.5, evaluation(tmp_path / "next", 60, 0.5)))

    assert asyncio.run(race()) == ""
    assert "gone stops no other point" in caplog.text


def test_a_rival_stops_a_point_only_once_it_has_ended_and_was_coherent_to_the_end(tmp_path: Path) -> None:
    """Otherwise the decision would depend on how far the rival has come."""

    async def race(response: str) -> tuple[bool, str]:
        stopping, folder = actor(), tmp_path / response
        await stopping.look(progress(0, "good", 0.25, evaluation(folder / "part", 0, 0.25)))
        look = asyncio.create_task(stopping.look(progress(1, "bad", 0.25, evaluation(folder / "bad", 50, 0.25))))
        done, _ = await asyncio.wait([look], timeout=0.2)
        await stopping.over(progress(0, "good", 1.0, evaluation(folder / "good", 0, response=response)))
        return bool(done), await look

    was_done, reason = asyncio.run(race("An answer."))
    assert not was_done and reason.endswith("good")
    assert asyncio.run(race("!?!?")) == (False, "")


def test_a_point_with_a_failed_seed_stops_no_other(tmp_path: Path) -> None:
    async def race() -> list[str]:
        stopping = actor()
        await stopping.over(seed(0, 1.0, evaluation(tmp_path / "0", 0)))
        await stopping.over(seed(1, 1.0, ""))
        looks = [stopping.look(seed(at, 0.5, evaluation(tmp_path / str(at), 60, 0.5))) for at in (2, 3)]
        return await asyncio.gather(*looks)

    assert asyncio.run(race()) == ["", ""]
