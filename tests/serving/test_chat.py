"""A model that can't be asked as a sweep asks it is refused before an engine starts."""

import shutil
from pathlib import Path

import pytest

from safecomm.errors import ModelError
from safecomm.judging.model_judge import Panel
from safecomm.serving.chat import check_chat_template
from safecomm.serving.models import ModelFolder
from safecomm.spec.judges import JudgeRef

GEMMA_2 = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DEAF = "{% for turn in messages if turn.role != 'system' %}{{ turn.content }}{% endfor %}"


def with_template(lab: dict[str, Path], folder: Path, template: str) -> Path:
    copy = Path(shutil.copytree(lab["guard"], folder, ignore=shutil.ignore_patterns("*.safetensors")))
    (copy / "chat_template.jinja").write_text(template)
    return copy


def test_a_template_that_takes_the_chat_passes(lab: dict[str, Path]) -> None:
    check_chat_template(lab["aligned"], ["user"], "model")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (GEMMA_2, r"rejects system, user chats; set model.system_prompt: null: System role not supported"),
        (DEAF, r"omits the system message"),
        ("", r"has no chat template"),
    ],
)
def test_a_template_without_a_place_for_the_system_prompt_is_refused(
    lab: dict[str, Path], tmp_path: Path, template: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=f"model: .*{reason}"):
        check_chat_template(with_template(lab, tmp_path / "other", template), ["system", "user"], "model")


def test_a_guard_is_shown_both_turns(lab: dict[str, Path], tmp_path: Path) -> None:
    guard = JudgeRef(name="guard", model="lab://guard")
    Panel([guard], models={"guard": ModelFolder(lab["guard"], "")}).check_chat_templates()
    first_turn = with_template(lab, tmp_path / "other", "{{ messages[0].content }}")
    with pytest.raises(ModelError, match="judge guard: .*omits the assistant message"):
        Panel([guard], models={"guard": ModelFolder(first_turn, "")}).check_chat_templates()
