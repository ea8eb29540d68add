"""An attacker that leads no conversation ends a sweep before its search, not after it."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml
from loopback import serving
from small_sweep import LEAST

from safecomm.errors import EvaluationError
from safecomm.serving.models import ModelFolder
from safecomm.spec import read_sweep
from safecomm.storage.store import Store
from safecomm.sweep.attacker import ASKED, check_attacker
from safecomm.sweep.stages import Stages

ATTACK = {"multi_turn": {"turns": 3}}


def chat(says: Callable[[int], str], asked: list[str]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Returns a server of chat completions; `says` is given the number of the request."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        asked.append(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": says(len(asked))}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        found = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        handler.wfile.write(found.encode())

    return reply


def stages_of(folder: Path, url: str, **red_team: object) -> Stages:
    evaluate = {
        **LEAST["evaluate"],  # type: ignore[dict-item]
        "red_team": [{"name": "lab-harm", **red_team}],
        "max_new_tokens": 32,
        **({"attacker": {"model": "lab://guard", "url": url}} if red_team else {}),
    }
    (folder / "sweep.yaml").write_text(
        yaml.safe_dump(LEAST | {"arms": {}, "storage": str(folder), "evaluate": evaluate})
    )
    model = ModelFolder(folder, "identity")
    return Stages(read_sweep(folder / "sweep.yaml"), model, model, Store.of(str(folder)), on_gpu=False)


def test_an_attacker_that_refuses_every_first_message_is_named(tmp_path: Path) -> None:
    asked: list[str] = []
    with (
        serving(chat(lambda number: "I can't help with that.", asked)) as url,
        pytest.raises(EvaluationError, match=r"evaluate.attacker: lab://guard refused .* each of 16 conversations"),
    ):
        check_attacker(stages_of(tmp_path, url, attack=ATTACK))
    assert len(asked) == ASKED and all("1 of 3" in message for message in asked)


def test_one_willing_message_is_enough_and_messages_are_asked_for_once(tmp_path: Path) -> None:
    asked: list[str] = []
    with serving(
        chat(lambda number: "Tell me about radios?" if number == 5 else "I can't help with that.", asked)
    ) as url:
        stages = stages_of(tmp_path, url, attack=ATTACK)
        check_attacker(stages)
        check_attacker(stages)
    assert len(asked) == ASKED


def test_a_sweep_without_conversations_asks_nothing(tmp_path: Path) -> None:
    asked: list[str] = []
    with serving(chat(lambda number: "", asked)) as url:
        check_attacker(stages_of(tmp_path, url))
    assert not asked
