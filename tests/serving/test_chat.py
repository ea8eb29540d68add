"""A model whose chat template can't express the sweep's prompts is rejected before an engine starts."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safecomm.data.turns import training_ids
from safecomm.errors import ModelError
from safecomm.judging.model_judge import Panel
from safecomm.serving.chat import check_chat_template, loaded_tokenizer
from safecomm.serving.engine import Question, chat_ids, end_ids
from safecomm.serving.models import ModelFolder
from safecomm.spec.judges import JudgeRef

GEMMA_2 = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DEAF = "{% for turn in messages if turn.role != 'system' %}{{ turn.content }}{% endfor %}"


def chat(*roles: str) -> Question:
    return Question(messages=[{"role": role, "content": f"a {role} message"} for role in roles], options=[])


def with_template(lab: dict[str, Path], folder: Path, template: str) -> Path:
    copy = Path(shutil.copytree(lab["guard"], folder, ignore=shutil.ignore_patterns("*.safetensors")))
    (copy / "chat_template.jinja").write_text(template)
    return copy


def test_a_template_that_renders_the_chat_passes(lab: dict[str, Path]) -> None:
    check_chat_template(lab["aligned"], chat("user"), "model")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (GEMMA_2, r"rejects system, user chats; set model.system_prompt: null: System role not supported"),
        (DEAF, r"omits the system message"),
        ("", r"has no chat template"),
    ],
)
def test_a_template_that_drops_the_system_prompt_is_rejected(
    lab: dict[str, Path], tmp_path: Path, template: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=f"model: .*{reason}"):
        check_chat_template(with_template(lab, tmp_path / "other", template), chat("system", "user"), "model")


def test_a_guard_sees_both_turns(lab: dict[str, Path], tmp_path: Path) -> None:
    guard = JudgeRef(name="guard", model="lab://guard")
    Panel([guard], models={"guard": ModelFolder(lab["guard"], "")}).check_chat_templates()
    first_turn = with_template(lab, tmp_path / "other", "{{ messages[0].content }}")
    with pytest.raises(ModelError, match=r"judge guard: .*omits the assistant message"):
        Panel([guard], models={"guard": ModelFolder(first_turn, "")}).check_chat_templates()


def test_a_multimodal_template_gets_messages_in_parts(lab: dict[str, Path], tmp_path: Path) -> None:
    template = (
        "{% for turn in messages %}{% for part in turn.content | selectattr('type', 'equalto', 'text') %}"
        "{{ part.text }}{% endfor %}{% endfor %}"
    )
    models = {"guard": ModelFolder(with_template(lab, tmp_path / "other", template), "")}
    guard = JudgeRef(name="guard", model="lab://guard", form="llama-guard-4")
    Panel([guard], models=models).check_chat_templates()
    with pytest.raises(ModelError, match=r"omits the user message"):
        Panel([guard.model_copy(update={"form": "guard"})], models=models).check_chat_templates()


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content.__class__.__mro__ }}", "rejects"),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "rejects"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "rejects"),
        ("{{ messages[7].content.x }}", "rejects"),
    ],
)
def test_a_hostile_template_is_refused_in_time(
    lab: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, reason: str
) -> None:
    monkeypatch.setattr("safecomm.data.turns.TEMPLATE_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(ModelError, match=reason):
        check_chat_template(with_template(lab, tmp_path / "other", template), chat("user"), "model")
    assert time.monotonic() - started < 20


def test_an_endless_template_is_ended_wherever_it_runs(
    lab: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines and trainers render on threads of their own; this one ends in the check, which has no answer."""
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    template = "{{ messages[0].content }}{% if messages[1:] %}" + endless + "{% endif %}"
    monkeypatch.setattr("safecomm.data.turns.TEMPLATE_SECONDS", 0.2)
    folder = with_template(lab, tmp_path / "other", template)
    check_chat_template(folder, chat("user"), "model")
    tokenizer = loaded_tokenizer(folder, "model")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(end_ids, tokenizer).result() == [tokenizer.eos_token_id]
        with pytest.raises(ValueError, match="rendering it takes more than"):
            pool.submit(training_ids, tokenizer, "a prompt", "an answer").result()
        with pytest.raises(ValueError, match="rendering it takes more than"):
            pool.submit(chat_ids, tokenizer, chat("user", "assistant")).result()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", '{"model_type": "no-such-type"}', "judge x: the config.json of .* can't be used"),
        ("config.json", "[]", r"the config.json of .* can't be used"),
        ("tokenizer.json", None, "the tokenizer of .* can't be used"),
        ("tokenizer.json", "{}", "the tokenizer of .* can't be used"),
        ("tokenizer_config.json", "\udcff", "the tokenizer of .* can't be used"),
    ],
)
def test_a_folder_that_no_engine_can_load_is_refused_before_one_starts(
    lab: dict[str, Path], tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    folder = with_template(lab, tmp_path / "other", "{{ messages[0].content }}")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, errors="surrogateescape")
    with pytest.raises(ModelError, match=said) as caught:
        check_chat_template(folder, chat("user"), "judge x")
    assert "\n" not in str(caught.value)
