"""Questions are streamed at the speed of the engines."""

from pathlib import Path
from typing import Any

import pytest
import ray
import ray.data
from ray import serve
from ray.exceptions import RayTaskError

from safecomm.serving.engine import Answer, EngineSettings, Question
from safecomm.serving.fleet import CHUNK, Fleet, Replica, chunks_in_flight, replicas_of_fleets, wait_for_fleet
from safecomm.serving.simulated_engine import answer_tokens
from safecomm.serving.stream import CHUNKS_A_TASK, Request, _answers, stream


class Silent:
    """A request to Serve that gets no answer."""

    def __init__(self, error: Exception):
        self.error, self.cancelled = error, False

    def result(self, timeout_s: float) -> list[Answer]:
        """Fails like a request that times out."""
        raise self.error

    def cancel(self) -> None:
        """Remembers it."""
        self.cancelled = True


@pytest.mark.parametrize("error", [TimeoutError(), RayTaskError("answer", "traceback", ValueError("gone"))])
def test_a_request_without_an_answer_is_cancelled_and_its_questions_fail(error: Exception) -> None:
    request = Silent(error)
    answers = _answers(request, 2)
    assert request.cancelled and [bool(answer["error"]) for answer in answers] == [True, True]


@pytest.mark.parametrize(("on_gpu", "sequences"), [(True, 1024), (False, 256)])
def test_a_replica_gets_twice_the_questions_that_it_answers_concurrently(on_gpu: bool, sequences: int) -> None:
    settings = EngineSettings(8, 64, 0, (), on_gpu=on_gpu)
    assert chunks_in_flight(on_gpu) * CHUNK == 2 * sequences
    assert chunks_in_flight(on_gpu, 3) == 3 * chunks_in_flight(on_gpu)
    assert Fleet("vllm", "model", settings, 3).options()["max_ongoing_requests"] == chunks_in_flight(on_gpu)
    assert serve.deployment(Replica).options(**Fleet("vllm", "model", settings, 3).options()).num_replicas == 3


def test_no_more_requests_are_sent_than_the_fleet_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    class Tasks(ray.data.TaskPoolStrategy):
        def __init__(self, size: int | None = None):
            found["size"] = size
            raise InterruptedError

    monkeypatch.setattr(ray.data, "TaskPoolStrategy", Tasks)
    monkeypatch.setattr("safecomm.serving.stream.fleet_capacity", lambda fleet: chunks_in_flight(True, 5))
    question = Question(messages=[{"role": "user", "content": "?"}], options=[])
    with pytest.raises(InterruptedError):
        next(stream({"": Request({str(number): question for number in range(100_000)})}))
    assert found["size"] * CHUNKS_A_TASK == chunks_in_flight(True, 5)


@pytest.mark.ray
def test_the_tokens_of_answers_are_counted_and_not_stored(ray_session: None, tmp_path: Path) -> None:
    speed = {"sequences": 8, "tokens_per_second": 1e9, "trained_tokens_per_second": 1, "clock": 1}
    settings = EngineSettings(20, 128, 0, (), simulation=speed)
    texts = [f"Why does cell {number} lose its link?" for number in range(CHUNK)]
    questions = {text: Question(messages=[{"role": "user", "content": text}], options=[]) for text in texts}
    counts: list[tuple[int, ...]] = []
    assert not replicas_of_fleets()
    with Fleet("simulated", str(tmp_path), settings, replicas=1).running():
        wait_for_fleet(60)
        assert replicas_of_fleets() == {"target": (1, 1)}
        ((_, rows),) = stream({"": Request(questions)}, count=lambda *count: counts.append(count))
    assert counts == [(CHUNK, CHUNK, sum(answer_tokens(text, 20, is_compared=False) for text in texts))]
    assert "tokens" not in rows
