"""An adapter's answers count only where the engine applies it."""

import asyncio
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from serving_helpers import SETTINGS

from safecomm.serving.canary import Canary
from safecomm.serving.engine import Answer, Question
from safecomm.serving.transformers_engine import TransformersEngine


class Deaf(TransformersEngine):
    """Ignores adapters, as engines did whose layers had other names than the adapter's."""

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
