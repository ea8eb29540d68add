"""The page holds every report-split answer of the headline arms, whatever its texts contain."""

import base64
import gzip
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from benchmark import benchmark

from safecomm.judging.best_of_n import TRY_OF
from safecomm.judging.results import disagreements
from safecomm.judging.verdicts import read_rows
from safecomm.report.explorer import Packed, packed
from safecomm.report.page import render, write_report
from safecomm.report.run import headline, read_run
from safecomm.report.samples import ArmAnswers, SampleAnswer, SamplePrompt, Samples, is_flipped, samples

HOSTILE = "</script><script>window.broken = 1</script><!-- \x1b[31m \x00 \ud800 \u2028 \u202e \" ' ]]> {{ 7 * 7 }}"
UNSCORED = "unscored"


def unpacked(found: Packed) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(found.text, validate=True)))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 5 arms and 400 prompts."""
    return Path(benchmark("explorer").write_run(tmp_path_factory.mktemp("many"), 400))


@pytest.fixture(scope="module")
def found(many: Path) -> Samples:
    run = read_run(many)
    return samples(run, headline(run))


@pytest.fixture(scope="module")
def rows(many: Path) -> dict[str, pd.DataFrame]:
    """Arm -> the rows that its report-split trial judged."""
    trials = pd.read_parquet(many / "trials.parquet").query("split == 'report'")
    store = many.parent / "store" / "evaluation"
    return {arm: read_rows(store / key) for arm, key in zip(trials["arm"], trials["evaluation"], strict=True)}


def test_every_answer_of_the_report_split_is_there_once(many: Path, rows: dict[str, pd.DataFrame]) -> None:
    run = read_run(many)
    data = unpacked(packed(run, samples(run, headline(run))))
    shown = [
        (arm["arm"], name, arm["row"][at], arm["response"][at], arm["verdict"][at], arm["others"][0][at] or None)
        for arm in data["arms"]
        for at, name in enumerate(data["prompts"]["id"])
    ]
    columns = ["prompt_id", "response", "verdict", "verdict@refusal"]
    stored = [
        (arm, one.prompt_id, place, one.response, one.verdict, one.other if isinstance(one.other, str) else None)
        for arm, table in rows.items()
        for place, one in enumerate(table[columns].rename(columns={"verdict@refusal": "other"}).itertuples())
    ]
    assert sorted(shown) == sorted(stored) and len(shown) == len(set(shown)) == 5 * 400


def test_flips_are_those_of_the_trials_rows(found: Samples, rows: dict[str, pd.DataFrame]) -> None:
    for first, second in combinations(found.arms, 2):
        both = rows[first.arm].merge(rows[second.arm], on=["benchmark", "prompt_id"])
        scored = both[(both["verdict_x"] != UNSCORED) & (both["verdict_y"] != UNSCORED)]
        expected = set(scored[scored["verdict_x"] != scored["verdict_y"]]["prompt_id"])
        flipped = {name for name in first.answers if is_flipped(first.answers[name], second.answers[name])}
        assert flipped == expected and expected, (first.arm, second.arm)


def test_judges_disagree_where_the_comparison_says_so(found: Samples, rows: dict[str, pd.DataFrame]) -> None:
    for arm in found.arms:
        expected = set(disagreements(rows[arm.arm], ["guard", "refusal"])["prompt_id"])
        assert {name for name, answer in arm.answers.items() if answer.is_disputed} == expected and expected


def test_an_attack_is_told_from_its_benchmark(found: Samples) -> None:
    named = {(prompt.benchmark, prompt.attack) for prompt in found.prompts}
    assert named == {("harm", ""), ("harm", "prefill5"), ("quiz", ""), ("borderline", "")}
    assert found.prompts[0].kind == "red_team", "harmful prompts come first"


def test_a_prompt_that_a_benchmark_repeats_is_shown_twice(many: Path, tmp_path: Path) -> None:
    run = benchmark("explorer").write_run(tmp_path, 8)
    for path in tmp_path.glob("store/evaluation/*/rows.parquet"):
        table = pd.read_parquet(path)
        table.assign(prompt_id=table["prompt_id"].where(table.index != 1, table["prompt_id"][0])).to_parquet(path)
    loaded = read_run(run)
    again = samples(loaded, headline(loaded))
    assert [prompt.id for prompt in again.prompts][:2] == [f"{0:016x}", f"{0:016x}.1"]
    assert {len(arm.answers) for arm in again.arms} == {8}


def test_several_tries_of_a_request_are_one_answer_that_is_no_label(tmp_path: Path) -> None:
    run = benchmark("explorer").write_run(tmp_path, 8)
    for path in tmp_path.glob("store/evaluation/*/rows.parquet"):
        table = pd.read_parquet(path)
        table[TRY_OF] = ["request" if name == "harm+prefill5" else "" for name in table["benchmark"]]
        table.to_parquet(path)
    loaded = read_run(run)
    arm = unpacked(packed(loaded, samples(loaded, headline(loaded))))["arms"][0]
    assert len(arm["tried"]) == 1 and len([row for row in arm["row"] if row is not None]) == 8 - 1


def test_multiple_choice_shows_the_chosen_option(run_folder: Path) -> None:
    run = read_run(run_folder)
    found = samples(run, headline(run))
    tasks = [prompt.id for prompt in found.prompts if prompt.kind == "task"]
    assert {arm.answers[name].response for arm in found.arms for name in tasks} == {"SMF"}


def hostile() -> Samples:
    prompts = [SamplePrompt(HOSTILE, "red_team", HOSTILE, HOSTILE, HOSTILE, HOSTILE)]
    answer = SampleAnswer(0, HOSTILE, HOSTILE, "unsafe", (), False)
    return Samples(prompts, [ArmAnswers("undefended", HOSTILE, "e", True, {HOSTILE: answer})], ())


def test_hostile_texts_reach_the_page_unchanged_and_can_not_leave_their_element(many: Path) -> None:
    run = read_run(many)
    answers = packed(run, hostile())
    assert unpacked(answers)["arms"][0]["response"] == [HOSTILE]
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", answers.text)
    assert "window.broken" not in render(run, answers)
    assert answers.script.count("\n") == 1 and "<" not in answers.script


def test_the_page_runs_no_script_but_its_own(many: Path) -> None:
    html = render(read_run(many))
    (nonce,) = re.findall(r"script-src 'nonce-([0-9a-f]+)'", html)
    started = re.findall(r"<script\b([^>]*)>", re.sub(r"(?s)(<script[^>]*>).*?</script>", r"\1", html))
    assert all("application/json" in one or "text/plain" in one or f'nonce="{nonce}"' in one for one in started)
    assert sum(nonce in one for one in started) == 3


def test_very_many_answers_go_into_a_file_beside_the_page(many: Path) -> None:
    inside = write_report(many).read_text(encoding="utf-8")
    beside = many / "report.answers.js"
    assert not beside.exists() and 'id="packed-answers"' in inside
    outside = write_report(many, most_inside=10).read_text(encoding="utf-8")
    assert 'src="report.answers.js"' in outside and 'id="packed-answers"' not in outside
    run = read_run(many)
    assert beside.read_text() == packed(run, samples(run, headline(run))).script
    write_report(many)
    assert not beside.exists(), "a page that holds its answers leaves no old ones beside it"


def test_the_table_library_is_shipped_with_its_license(many: Path) -> None:
    html = render(read_run(many))
    assert "Tabulator v6" in html and "Permission is hereby granted, free of charge" in html
