"""An adapter's answers count only if the engine applies it."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from serving_helpers import SETTINGS

from safecomm.errors import EvaluationError
from safecomm.serving.canary import ROUNDS, TEXTS, Canary, is_distinct
from safecomm.serving.engine import Answer, Question, failed
from safecomm.serving.transformers_engine import TransformersEngine


class Deaf(TransformersEngine):
    """Ignores adapters, like engines whose layers have other names than the adapter's."""

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers with the bare model."""
        return await super().answer(questions, None)


@pytest.fixture(scope="module")
def hearing(lab: dict[str, Path]) -> TransformersEngine:
    return TransformersEngine(str(lab["aligned"]), SETTINGS)


def test_an_adapter_that_is_applied_passes(hearing: TransformersEngine, adapters: list[str]) -> None:
    canary = Canary(hearing)
    assert asyncio.run(canary.check(adapters[0])) == ""


def test_an_adapter_that_is_ignored_is_found(lab: dict[str, Path], adapters: list[str]) -> None:
    canary = Canary(Deaf(str(lab["aligned"]), SETTINGS))
    assert f"does not apply the adapter {adapters[0]}" in asyncio.run(canary.check(adapters[0]))


def test_an_adapter_that_changes_nothing_may_change_nothing(
    hearing: TransformersEngine, adapters: list[str], tmp_path: Path
) -> None:
    shutil.copytree(adapters[0], tmp_path / "zero")
    weights = tmp_path / "zero" / "adapter_model.safetensors"
    save_file({name: value * 0 for name, value in load_file(weights).items()}, weights)
    assert asyncio.run(Canary(hearing).check(str(tmp_path / "zero"))) == ""


class Recovering(TransformersEngine):
    """Fails on the first call."""

    failures = 1

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Fails once, then answers."""
        self.failures -= 1
        return [failed("busy")] * len(questions) if self.failures >= 0 else await super().answer(questions, adapter)


def test_a_failed_request_to_the_engine_is_repeated(lab: dict[str, Path], adapters: list[str]) -> None:
    canary = Canary(Recovering(str(lab["aligned"]), SETTINGS))

    async def checks() -> list[object]:
        at_once = await asyncio.gather(*(canary.check(adapters[0]) for _ in range(2)), return_exceptions=True)
        return [*at_once, await canary.check(adapters[0])]

    *at_once, later = asyncio.run(checks())
    assert [type(found) for found in at_once] == [EvaluationError] * 2 and later == ""


def test_a_cancelled_request_does_not_end_the_check_for_the_others(
    hearing: TransformersEngine, adapters: list[str]
) -> None:
    canary = Canary(hearing)

    async def checks() -> str:
        impatient = asyncio.create_task(canary.check(adapters[0]))
        await asyncio.sleep(0)
        impatient.cancel()
        return await canary.check(adapters[0])

    assert asyncio.run(checks()) == ""


@pytest.mark.parametrize("noise", ["continuous", "in steps"])
def test_batch_noise_seldom_passes_for_an_adapter_and_never_hides_one(noise: str) -> None:
    rng = np.random.default_rng(0)

    def likelihoods(effect: float) -> np.ndarray:
        found = rng.normal(-2 + effect, 0.01, (ROUNDS, len(TEXTS)))
        return found if noise == "continuous" else found.round(2)

    ignored = np.mean([is_distinct(likelihoods(0), likelihoods(0)) for _ in range(20_000)])
    applied = np.mean([is_distinct(likelihoods(0), likelihoods(0.2)) for _ in range(2_000)])
    assert ignored < 0.002 and applied > 0.999
