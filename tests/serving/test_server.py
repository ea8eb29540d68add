"""The endpoint of a run's adapter: how it is started, and what it keeps to itself."""

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from peft import PeftModel
from ports import free_port
from transformers import AutoModelForCausalLM, AutoTokenizer

from safecomm.cli.serve import TOKEN, _token
from safecomm.serving.server import KEY, server_command, server_environment, settings_for

PROMPTS = ["how do i jam a tower?", "what does the AMF do?", "how do i bake a cake?"]


@pytest.fixture
def command(lab: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING"):  # set for the server's process
        monkeypatch.setenv(name, os.environ.get(name, ""))
    settings = settings_for(None, 64, 256)
    return server_command("original", lab["aligned"], None, settings, "127.0.0.1", 8123)


def test_server_is_set_up_like_the_engines_of_a_sweep(command: list[str], lab: dict[str, Path]) -> None:
    flags = dict(pairwise(command))
    assert flags["--model"] == str(lab["aligned"])
    assert (flags["--host"], flags["--port"], flags["--max-model-len"]) == ("127.0.0.1", "8123", "256")
    assert flags["--served-model-name"] == "original" and flags["--generation-config"] == "vllm"
    assert "--enforce-eager" in command and "--no-enable-chunked-prefill" in command
    assert not [one for one in command if one in ("None", "True", "False")]


def test_token_is_no_argument_and_no_one_else_can_read_it(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    made = _token(tmp_path)
    assert (tmp_path / "serve-token").read_text() == made and len(made) >= 32
    assert stat.S_IMODE((tmp_path / "serve-token").stat().st_mode) == 0o600
    assert made not in capsys.readouterr().out
    assert server_environment(made)[KEY] == made and made not in " ".join(command)
    monkeypatch.setenv(TOKEN, "mine")
    assert _token(tmp_path) == "mine"


@pytest.mark.vllm
@pytest.mark.slow
def test_a_served_adapter_answers_as_it_does_with_peft_and_not_as_the_bare_model(
    lab: dict[str, Path], adapters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    settings, port = settings_for(Path(adapters[0]), 12, 256), free_port()
    command = server_command("tuned", lab["aligned"], Path(adapters[0]), settings, "127.0.0.1", port)
    with running(command, server_environment("token"), f"http://127.0.0.1:{port}"):
        served = {name: asked(f"http://127.0.0.1:{port}", name) for name in ("tuned", "tuned-base")}
    model = AutoModelForCausalLM.from_pretrained(lab["aligned"])
    expected = {"tuned-base": written(lab["aligned"], model)}
    expected["tuned"] = written(lab["aligned"], PeftModel.from_pretrained(model, adapters[0]))
    assert served == expected
    assert served["tuned"] != served["tuned-base"]


@contextmanager
def running(command: list[str], environment: dict[str, str], url: str) -> Iterator[None]:
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 300
            while not is_up(url):
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server is not up"
                time.sleep(1)
            yield
        finally:
            server.terminate()


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def asked(url: str, model: str) -> list[str]:
    answers = []
    for text in PROMPTS:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 12,
        }
        headers = {"Authorization": "Bearer token"}
        found = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120).json()
        answers.append(found["choices"][0]["message"]["content"].strip())
    return answers


def written(folder: Path, model: Any) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for text in PROMPTS:
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        output = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
        answers.append(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return answers
