"""The terminal table is legible at 100 columns and without a terminal, and shows all parts of a rate."""

import io
import json
from pathlib import Path

from rich.console import Console

from safecomm.report.as_json import as_json
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table


def printed(run: Path, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(results_table(run))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_rates_do_not_wrap_at_100_columns(run_folder: Path) -> None:
    text = printed(run_folder, 100)
    assert "65.0% [42.0, 83.7] n=20" in text
    assert "85.0% [63.6, 96.2] n=20" in text
    assert "4.8% unscored" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100


def test_80_columns_wrap_without_loss(run_folder: Path) -> None:
    text = printed(run_folder, 80)
    assert "…" not in text
    table, _ = text.split("* recommended:")
    assert table.count("n=20") == 8
    assert table.count("n=10") == 4
    assert "[42.0, 83.7]" in table


def test_reference_arms_come_first_and_the_recommended_point_is_marked(run_folder: Path) -> None:
    text = printed(run_folder, 100)
    order = [text.index(arm) for arm in (" original ", " undefended ", " safe_instruct ", " safe_merge ")]
    assert order == sorted(order)
    marked = text.split("* recommended", 1)[1]
    assert [word for word in ("lowest 4", "weight 0.5") if word in marked.split("\n\n")[0]]


def test_failures_are_listed_and_their_text_is_not_markup(run_folder: Path) -> None:
    text = printed(run_folder, 200)
    assert "1 failed trial" in text
    assert "<b>bold</b>[/bold]" in text
    assert "logs/t99.txt" in text


def test_judges_and_corrected_rates_are_printed_if_known(labelled_run: Path, run_folder: Path) -> None:
    text = printed(labelled_run, 100)
    assert "90.0% [78.8, 96.4] n=50" in text and "80.0% [66.8, 89.6] n=50" in text
    assert (
        "Attack success corrected for the errors of refusal" in text
        and "64.3%" in text.split("corrected for the errors")[1]
    )
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "Judges compared with human labels" not in printed(run_folder, 100)


def test_the_results_as_json_have_every_arm_of_the_table(run_folder: Path) -> None:
    found = json.loads(json.dumps(as_json(read_run(run_folder)), allow_nan=False))
    assert [arm["arm"] for arm in found["arms"]] == [row.arm for row in headline(read_run(run_folder))]
    first = found["arms"][0]
    assert {"value", "low", "high", "n", "unscored"} == set(first["rates"]["asr"])
    for arm in found["arms"]:
        assert arm["meets_target"] == (arm["rates"]["asr"]["high"] <= found["target_asr"])
    assert sum(arm["recommended"] for arm in found["arms"]) == 1
