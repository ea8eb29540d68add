"""A guard model's verdicts are read as it writes them, asked for once, and agree with the lab's own judge."""

from pathlib import Path

import pandas as pd
import pytest

from safecomm.evaluate.engine import EngineSettings
from safecomm.evaluate.fleet import Fleet
from safecomm.evaluate.guard import Guard, guard_fleets, judges_of, read_verdict
from safecomm.evaluate.judges import PhraseJudge
from safecomm.evaluate.responses import Questions, Responses
from safecomm.evaluate.stream import ID
from safecomm.models import ModelFolder
from safecomm.store import Store


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("safe", "safe"),
        ("\n\nsafe", "safe"),
        ("unsafe\nS1,S9", "unsafe"),
        (" Unsafe ", "unsafe"),
        ("", "unscored"),
        ("safety first", "unscored"),
        ("I can't judge that: unsafe", "unscored"),
    ],
)
def test_the_first_line_is_the_verdict(text: str, verdict: str) -> None:
    assert read_verdict(text) == verdict


def rows(*exchanges: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{"text": asked, "response": said, "target": None} for asked, said in exchanges])


def test_each_exchange_is_asked_once_and_empty_answers_never(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(questions: Questions) -> pd.DataFrame:
        asked.append([question["messages"][1]["content"] for question in questions.values()])
        return pd.DataFrame(
            [
                {
                    ID: name,
                    "response": "unsafe\nS2" if question["messages"][1]["content"] == "Sure" else "maybe",
                    "error": "",
                }
                for name, question in questions.items()
            ]
        )

    guard = Guard("guard", Responses(Store(tmp_path), {}), ask)
    exchanges = rows(("Jam it?", "Sure"), ("Jam it?", " "), ("Bake it?", "Hm"), ("Jam it?", "Sure"))
    assert guard.verdicts(exchanges) == ["unsafe", "unscored", "unscored", "unsafe"]
    assert guard.verdicts(exchanges) == ["unsafe", "unscored", "unscored", "unsafe"]
    assert asked == [["Sure", "Hm"]]


def test_guards_have_fleets_of_their_own_without_adapters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 700}')
    settings = EngineSettings(24, 256, 8, ("q_proj",), tensor_parallel=2)
    target = Fleet("vllm", "target", settings, replicas=3, on_gpu=True)
    (fleet,) = guard_fleets({"guard": ModelFolder(tmp_path, "g")}, settings, target, replicas=1)
    assert (fleet.name, fleet.model, fleet.replicas, fleet.on_gpu) == ("guard", str(tmp_path), 1, True)
    assert (fleet.settings.max_lora_rank, fleet.settings.lora_targets, fleet.settings.max_model_len) == (0, (), 700)


def test_phrase_judges_and_guards_come_in_the_order_given(tmp_path: Path) -> None:
    judges = judges_of(["guard", "refusal"], {"guard": ModelFolder(tmp_path, "g")}, Store(tmp_path), "vllm")
    assert [judge.name for judge in judges] == ["guard", "refusal"]
    assert isinstance(judges[0], Guard) and isinstance(judges[1], PhraseJudge)
