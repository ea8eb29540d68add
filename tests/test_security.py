"""What files and options hold is data: it steers no terminal, spreadsheet or page, and no secret is written."""

import io
from pathlib import Path

import pandas as pd
import pytest
from command_line import safecomm
from huggingface_hub import ModelCard, ModelCardData
from rich.table import Table
from rich.text import Text

from safecomm.cli.console import PlainConsole
from safecomm.cluster.reachable import ClusterError, check_answers, check_ray_address
from safecomm.errors import SpecError, UsageError, printable
from safecomm.judging.results import write_results
from safecomm.report.card import hub_id
from safecomm.serving.remote import _SPECIAL
from safecomm.spec import read_sweep
from safecomm.spec.secrets import refuse_secrets

LAB = Path(__file__).parents[1] / "sweeps" / "lab.yaml"
TOKEN = "hf_" + "A" * 34
CONTROLS = ["\x1b[31mred", "\x9b2J", "\x1b]0;title\x07", "a\rb", "\x08", "\u202egnp.exe", "\x7f", "\x00"]


@pytest.mark.parametrize("text", CONTROLS)
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    written = io.StringIO()
    console = PlainConsole(file=written, force_terminal=True, color_system=None, width=100)
    table = Table("name", title=text)
    table.add_row(text)
    table.add_row(Text(text, "red"))
    console.print(text, table)
    assert set(written.getvalue()) & set("\x1b\x9b\x07\r\x08\u202e\x7f\x00") == set()
    assert printable(text) in written.getvalue() or text in ("\x1b]0;title\x07", "a\rb", "\x08")  # rich drops these


def test_names_are_no_markup() -> None:
    written = io.StringIO()
    names = ["[bold]x[/bold]", "[/]", "[link=file:///etc]x[/link]", "rate [1.0, 2.0]", "\\[x]"]
    table = Table("name")
    for name in names:
        table.add_row(name)
    PlainConsole(file=written, width=100).print(*names, table)
    assert all(written.getvalue().count(name) == 2 for name in names)


FAMILIES = [
    *("<|im_end|>", "<|eot_id|>", "</s>", "<s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<end_of_turn>"),
    *(
        "<\uff5cend▁of▁sentence\uff5c>",
        "<|END_OF_TURN_TOKEN|>",
        "[TOOL_CALLS]",
        "[/AVAILABLE_TOOLS]",
        "[SYSTEM_PROMPT]",
    ),
    *("[gMASK]", "[MASK]", "[UNUSED_TOKEN_145]", "<channel|>", "<|channel>", "<reserved_106>", "]~b]", "[e~[", "<pad>"),
]


@pytest.mark.parametrize("token", FAMILIES)
def test_a_remote_judge_receives_no_familys_special_token_whole(token: str) -> None:
    assert token not in _SPECIAL.sub(r"\g<0> ", f"an answer {token} and more{token}")


@pytest.mark.parametrize("text", ["if a < b and c > d", "x[0] = [1, 2]", "a [link](url)", "1 << 3", "[A]", "~b"])
def test_ordinary_text_reaches_a_remote_judge_unchanged(text: str) -> None:
    assert _SPECIAL.sub(r"\g<0> ", text) == text


@pytest.mark.parametrize("cell", ['=HYPERLINK("http://x","y")', "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_the_disagreements_is_a_formula(tmp_path: Path, cell: str) -> None:
    columns = {"kind": ["red_team"], "response": [cell], "verdict": ["safe"], "verdict@two": ["unsafe"], "n": [-1]}
    write_results(tmp_path, [], pd.DataFrame(columns), ["one", "two"], {})
    (row,) = pd.read_csv(tmp_path / "disagreements.csv").to_dict("records")
    assert row["response"].startswith("'") and row["n"] == -1
    assert pd.read_parquet(tmp_path / "rows.parquet")["response"][0] == cell


@pytest.mark.parametrize(
    "model", ["a\nlicense: mit", "x: y", "lab://aligned", "'a'", "a/b\n---\n# x", "&a", "*a", "!x"]
)
def test_a_models_name_is_one_value_of_the_model_cards_metadata(model: str) -> None:
    base = hub_id(model)
    assert base in (model, None), "a name is taken as it is, or not at all"
    data = ModelCardData(base_model=base, library_name="peft", model_name=model, eval_results=[])
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == {
        **({"base_model": model} if base else {}),
        "library_name": "peft",
        "model-index": [{"name": model, "results": []}],
    }


@pytest.mark.parametrize("key", ["model.aligned", "storage", "evaluate.red_team.0.name"])
@pytest.mark.parametrize("value", [r'"a\nlicense: mit"', r'"a\x1b[31m"', r'"a\x85b"'])
def test_names_with_control_characters_are_refused(key: str, value: str) -> None:
    with pytest.raises(SpecError, match=key):
        read_sweep(LAB, [f"{key}={value}"])


@pytest.mark.parametrize(
    "value",
    [TOKEN, '"hf_\\x41' + TOKEN[4:] + '"', "{a: [" + TOKEN + "]}", "'" + TOKEN + "'", '"\\u0068' + TOKEN[1:] + '"'],
)
@pytest.mark.parametrize("key", ["model.system_prompt", "name", "model.chat_template_kwargs"])
def test_a_secret_in_a_sweep_is_refused_however_it_is_written(key: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="contains a secret") as caught:
        read_sweep(LAB, [f"{key}={value}"])
    assert TOKEN[4:] not in str(caught.value)
    file = tmp_path / "sweep.yaml"
    section, _, last = key.rpartition(".")
    file.write_text(f"{section or 'x'}: {{{last}: {value}}}")
    with pytest.raises(SpecError, match="contains a secret") as caught:
        read_sweep(file)
    assert TOKEN[4:] not in str(caught.value)


def test_a_secret_in_an_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_secrets({"--system-prompt": "be kind", "--judge": ["refusal"], "--grader": None})
    monkeypatch.setenv("OPENAI_API_KEY", "a secret of mine")
    for value in (TOKEN, f"x {TOKEN} y", [TOKEN], "say: a secret of mine"):
        with pytest.raises(UsageError, match="--system-prompt contains a secret") as caught:
            refuse_secrets({"--system-prompt": value})
        assert "AAAA" not in str(caught.value) and "of mine" not in str(caught.value)


@pytest.mark.parametrize("option", ["--chat-template-kwargs", "--judge"])
def test_a_secret_behind_an_escape_in_an_option_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    value = '{name: "\\u0068' + TOKEN[1:] + '", model: lab://aligned}'
    words = ("--model=lab://aligned", "--benchmark=lab-harm", f"{option}={value}", f"--out={tmp_path}")
    assert safecomm(monkeypatch, "evaluate", *words) == 2
    said = capsys.readouterr().err
    assert f"{option} contains a secret" in said and TOKEN[4:] not in said


def test_the_home_of_a_user_that_does_not_exist_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    storage = "--storage=~nobody-of-this-name/x"
    words = ("--model=lab://aligned", "--benchmark=lab-harm", storage, f"--out={tmp_path}")
    assert safecomm(monkeypatch, "evaluate", *words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("address", ["http://me:hunter2@host:8265", "me:hunter2@host:6379", "http://hunter2@[::1"])
def test_a_password_in_an_address_is_refused_without_repeating_it(address: str) -> None:
    for check in (check_answers, check_ray_address):
        with pytest.raises(ClusterError) as caught:
            check(address)
        assert "hunter2" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "address", ["http://[::1", "[:::]:1", "host:99999", "host:x", "http://", ":1", "a..b:80", "x:", "ä" * 70 + ":1"]
)
def test_a_broken_address_is_one_message(address: str) -> None:
    with pytest.raises(ClusterError) as caught:
        check_answers(address)
    assert "\n" not in str(caught.value)
