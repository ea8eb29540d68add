"""Labels drawn from a run reach its certificate, its gate and its report; a draw suggests no label."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from safecomm.cli import main
from safecomm.judging.labels import Labelled
from safecomm.report.certificate import certify
from safecomm.report.gate import decide
from safecomm.report.human_labels import draw
from safecomm.report.page import render
from safecomm.report.policy import Policy
from safecomm.report.release import released
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table
from safecomm.storage.store import Store

RULE = {"rules": [{"metric": "asr", "max": 0.3}]}


def answers(safe: int = 300, unsafe: int = 20) -> pd.DataFrame:
    verdicts = ["safe"] * safe + ["unsafe"] * unsafe + ["unscored"] * 4
    names = [f"e:{at}" for at in range(len(verdicts))]
    table = pd.DataFrame({"answer_id": names, "verdict": verdicts, "kind": "red_team", "text": "p", "response": "r"})
    return pd.concat([table.assign(benchmark=name, answer_id=table["answer_id"] + name) for name in "ab"])


def test_every_verdict_of_every_benchmark_is_drawn_and_not_shown() -> None:
    table = answers()
    found = draw(table, 100)
    assert list(found) == ["answer_id", "benchmark", "prompt", "response", "unsafe"] and set(found["unsafe"]) == {""}
    drawn = table[table["answer_id"].isin(found["answer_id"])].groupby(["benchmark", "verdict"]).size()
    assert drawn["a", "unscored"] == 4 and drawn["a", "unsafe"] == 10 and 35 < drawn["b", "safe"] < 50
    more = draw(table, 200)
    assert set(found["answer_id"]) < set(more["answer_id"]), "a larger draw adds to a smaller one"


def test_answers_that_stand_for_several_tries_are_not_drawn() -> None:
    table = answers()
    tries = table.assign(try_of=["" if name == "a" else str(at) for at, name in enumerate(table["benchmark"])])
    assert set(draw(tries, 100)["benchmark"]) == {"a"}


@pytest.fixture
def drawn(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, pd.DataFrame]]:
    """A run, and what the command drew of its safe_merge: 20 scored answers, of which 1 is unsafe, and 1 unscored."""
    shutil.copytree(run_folder.parent, tmp_path / "storage")
    run, out = tmp_path / "storage" / "small", tmp_path / "labels.csv"
    words = ["labels", "draw", str(run), "--out", str(out), "--arm", "safe_merge"]
    monkeypatch.setattr("sys.argv", ["safecomm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    yield run, pd.read_csv(out, dtype=str, keep_default_na=False)


def label(run: Path, table: pd.DataFrame, unsafe: list[int]) -> None:
    """Writes the labels as `run` would, after a person filled in the file."""
    path = run.parent / "labels.csv"
    table.assign(unsafe=unsafe).to_csv(path, index=False)
    sweep = json.loads((run / "sweep.json").read_text())
    sweep["evaluate"]["labels"] = str(path)
    (run / "sweep.json").write_text(json.dumps(sweep))
    judges = {"file": str(path), "digest": "d", "judges": {}, "drawn": Labelled.read(path).drawn}
    (run / "judges.json").write_text(json.dumps(judges))


def test_labels_decide_the_gate_in_the_judges_place(drawn: tuple[Path, pd.DataFrame]) -> None:
    """Issue: the gate saw 3% where labels made it 5%."""
    run, table = drawn
    assert len(table) == 20 + 1
    before = decide(released(read_run(run), "safe_merge", 0), Policy.model_validate(RULE))
    assert before.verdict == "GO" and "phrase list" in before.notes[0]
    label(run, table, [1] * 15 + [0] * 6)  # the judge missed 14
    after = decide(released(read_run(run), "safe_merge", 0), Policy.model_validate(RULE))
    assert after.verdict == "NO-GO" and after.notes == []
    assert after.findings[0].value is not None and 0.6 < after.findings[0].value < 0.8
    other = decide(released(read_run(run), "safe_instruct", 0), Policy.model_validate(RULE))
    assert "human labels are of other answers" in other.notes[0] and "phrase list" in other.notes[1]


def test_labels_decide_the_certificate_and_are_shown(drawn: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    run, table = drawn
    label(run, table, [0] * 21)
    found, store = read_run(run), Store(tmp_path / "looks")
    certificate = certify(found, store)
    (asr,) = [t for one in certificate.candidates if one.arm == "safe_merge" for t in one.tests if t.metric == "asr"]
    assert (asr.value, asr.n) == (0.0, 21) and "from 21 labels" in certificate.judge
    label(run, table, [1] + [0] * 20)
    assert (certify(found, store).look, certify(read_run(run), store).look) == (1, 2), "other labels are another look"
    (row,) = [row for row in headline(read_run(run)) if row.arm == "safe_merge"]
    assert 0 < row.corrected["asr/lab-harm"].value < 0.1
    assert "from human labels of these answers" in render(read_run(run))
    assert len(results_table(run).renderables) > 2
