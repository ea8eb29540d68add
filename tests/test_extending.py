"""The code in docs/extending.md loads, plans and runs in a sweep, and mistakes are reported in one line."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from small_sweep import PATIENCE, offline

from safecomm.cluster.session import Resources
from safecomm.data.rows import Example
from safecomm.errors import SpecError, UsageError
from safecomm.judging.judges import OwnJudge
from safecomm.plan.data import check_data
from safecomm.plan.plan import make_plan
from safecomm.search.arms import Trial, chain_at, realignments, seeded, training
from safecomm.search.equivalence import EquivalentPoints, needs_profile
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.search.stopping_rule import rule_of
from safecomm.spec import read_sweep
from safecomm.statistics.domain import TELECOM
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage.own_code import load

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.S))
(SWEEP,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.S)


def write_files(folder: Path) -> Path:
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    path = folder / "extended.yaml"
    path.write_text(SWEEP + f"storage: {folder / 'runs'}\n", encoding="utf-8")
    return path


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The guide's sweep beside the guide's files, which lie in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield write_files(tmp_path)
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_the_guide_is_complete(sweep_file: Path) -> None:
    named = set(re.findall(r"\b(\w+):[A-Za-z]\w*", SWEEP.replace("lab://", "")))
    assert {name.removesuffix(".py") for name in FILES} <= named


def test_extensions_are_planned_without_torch(sweep_file: Path) -> None:
    code = (
        "import sys, pathlib; from safecomm.spec import read_sweep;"
        "read_sweep(pathlib.Path('extended.yaml')); print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_extensions_plan_and_their_data_loads(sweep_file: Path) -> None:
    sweep = read_sweep(sweep_file)
    plan = make_plan(sweep, Resources(cpus=2, gpus=0), EquivalentPoints(sweep, ProfileCache(sweep)))
    assert plan.finetunes == 2 and plan.arms["shrunk"].trials == 2
    assert plan.prompts.judged == 25 * 1
    check_data(sweep)


def test_resolved_sweep_reads_back_equal(sweep_file: Path) -> None:
    sweep = read_sweep(sweep_file)
    resolved = sweep_file.with_name("sweep.json")
    resolved.write_text(json.dumps(sweep.resolved()))
    assert read_sweep(resolved) == sweep


def test_arms_use_the_defense_name_and_record_its_code(sweep_file: Path) -> None:
    sweep = read_sweep(sweep_file)
    point = {"shrink.factor": 0.25}
    (trial,) = seeded(sweep, "shrunk", point)
    assert trial.chain == (("shrink:Shrink", {"lowest": 8, "factor": 0.25}),)
    assert Trial.of(json.loads(json.dumps(trial.as_config()))) == trial
    assert realignments(trial.chain) == trial.chain and needs_profile(sweep.arms["shrunk"])
    short = chain_at(sweep.arms["short"], {})
    assert training(short) == {"short_answers:ShortAnswers.longest": 300, "short_answers:ShortAnswers.penalty": 0.0001}


TRAITS = """
from typing import ClassVar
from safecomm.defenses import Selecting
class Below(Selecting):
    name: ClassVar[str] = "below"
    needs: ClassVar = ("profile",)
    strict: ClassVar[bool] = {strict}
    def added_rank(self, rank): return rank + 3
    def apply(self, profile): ...
"""


@pytest.mark.parametrize("strict", [False, True])
def test_the_search_and_the_plan_follow_a_defenses_traits(sweep_file: Path, strict: bool) -> None:
    sweep_file.with_name("below.py").write_text(TRAITS.format(strict=strict))
    sweep = read_sweep(sweep_file, ["arms={below: [{below:Below: {threshold: {grid: [0.5, 0.6]}}}]}"])
    profiles = ProfileCache(sweep)
    rows = [ModuleProfile(name, rho, 0.7, 1, 1, 1) for name, rho in (("a.q_proj", 0.5), ("a.v_proj", 0.7))]
    profiles.keep({}, 0, rows)
    outcomes = EquivalentPoints(sweep, profiles)
    keys = {outcomes.key("below", {"below.threshold": threshold}) for threshold in (0.5, 0.6)}
    assert len(keys) == (2 if strict else 1), "a module at the threshold is selected unless the defense is strict"
    assert make_plan(sweep, Resources(cpus=2, gpus=0), outcomes).max_lora_rank == 4 + (4 + 3)


def test_edited_file_invalidates_its_results(sweep_file: Path) -> None:
    def context() -> str:
        sweep = read_sweep(sweep_file)
        (trial,) = seeded(sweep, "shrunk", {"shrink.factor": 0.25})
        return RunFolder(sweep).keep(TrialRecord.of(trial, "done")).context

    before = context()
    assert context() == before
    for name in ("shrink.py", "pole_climbing.py", "ladder_judge.py"):
        path = sweep_file.with_name(name)
        path.write_text(path.read_text() + "# edited\n")
        assert context() != before, name
        before = context()


def test_a_training_defense_changes_the_data(sweep_file: Path) -> None:
    from safecomm.sweep.training_data import training_set

    defense = load("short_answers:ShortAnswers")(longest=3)
    examples = [Example("a", "long"), Example("b", "abc")]
    assert training_set([defense], examples, (), 0) == [examples[1]]
    assert sorted(e.prompt for e in training_set([], examples, (), 0)) == ["a", "b"]


def test_judge_with_invalid_verdicts_is_named(sweep_file: Path) -> None:
    rows = pd.DataFrame({"response": ["take a ladder", "no", ""]})
    assert OwnJudge("j", "ladder_judge:LadderJudge").verdicts(rows) == ["unsafe", "safe", "unscored"]
    wrong = {"few": "[]", "odd": "['bad'] * len(rows)"}
    for name, said in {"few": "0 verdicts for 3 rows", "odd": "'bad'; a verdict is one of"}.items():
        sweep_file.with_name(f"{name}.py").write_text(f"class J:\n    def verdicts(self, rows): return {wrong[name]}\n")
        with pytest.raises(UsageError, match=said):
            OwnJudge("j", f"{name}:J").verdicts(rows)


def test_user_stopping_rule_is_called(sweep_file: Path) -> None:
    from numpy import array

    rule = rule_of("quick_search:HalfAsSafe", 0.1, 0.05, 1, 1, TELECOM, 0.05)
    one, other = ({"red_team": {"bench": array(shares)}} for shares in ([1.0, 1.0, 1.0], [1.0, 0.0, 0.0]))
    assert rule.loses(one, other, {}) and not rule.loses(other, one, {})


BROKEN = """
import safecomm.defenses as d
class NoDefense: pass
class NoName(d.TrainingDefense): pass
class Taken(d.TrainingDefense):
    name = "scale"
class NoApply(d.Realignment):
    name = "no_apply"
number = 3
"""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("defenses=[nowhere:X]", "nowhere:X: there is no module nowhere; put it into the working directory"),
        ("defenses=[shrink:Shrnk]", "has no Shrnk; correct the name"),
        ("defenses=[importing:X]", "importing importing fails: ZeroDivisionError: division by zero"),
        ("defenses=[needing:X]", "needing imports no_such_package, which is not installed"),
        ("defenses=[safe_lora]", "built-in defenses need no entry"),
        ("defenses=[broken:NoDefense]", "is not a defense; subclass safecomm.defenses.Realignment"),
        ("defenses=[broken:NoName]", "has no name; add `name"),
        ("defenses=[broken:Taken]", "its name, scale, is taken by a built-in defense"),
        ("defenses=[broken:NoApply]", "has no method apply(self"),
        ("defenses=[shrink:Shrink, shrink:Shrink]", "two defenses have the same name"),
        (
            "arms.shrunk=[{shrink: {lowest: 8, factor: 2}}]",
            "shrunk.0.shrink:Shrink.factor: must be between 0 and 1",
        ),
        ("arms.shrunk=[{shrnk: {lowest: 8}}]", "there is no defense 'shrnk'"),
        ("evaluate.judges=[broken:number]", "is not a judge; make it a class with a method verdicts"),
        ("evaluate.judges=[{name: j, own: 'ladder_judge:LadderJudge', model: m}]", "takes no settings"),
        ("evaluate.red_team=[broken:number]", "is not a dataset; make it a safecomm.data.dataset.Dataset"),
        ("evaluate.task=[pole_climbing:POLE_CLIMBING]", "can't be used as task data"),
        ("search.algorithm=broken:number", "is not a valid algorithm; make it a function or a class"),
        ("search.algorithm=tpee", "there is no algorithm 'tpee'; did you mean tpe?"),
        ("search.racing.rule=broken:number", "is not a valid stopping rule"),
    ],
)
def test_invalid_extension_is_rejected_with_its_key(sweep_file: Path, override: str, said: str) -> None:
    sweep_file.with_name("broken.py").write_text(BROKEN)
    sweep_file.with_name("importing.py").write_text("1 / 0\n")
    sweep_file.with_name("needing.py").write_text("import no_such_package\n")
    with pytest.raises(SpecError) as caught:
        read_sweep(sweep_file, [override])
    (line,) = caught.value.problems
    assert said in line and line.startswith(override.split("=")[0].split(".")[0])


@pytest.mark.ray
@pytest.mark.slow
def test_guide_sweep_runs(sweep_file: Path) -> None:
    command = [sys.executable, "-m", "safecomm", "run", sweep_file.name]
    environment = offline(PYTHONPATH=str(ROOT))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    trials = pd.read_parquet("runs/extended/trials.parquet")
    assert set(trials["status"]) <= {"done", "stopped"}
    assert {"original", "undefended", "shrunk", "short"} == set(trials["arm"])
    lineages = [json.loads(path.read_text())["inputs"] for path in Path("runs/store").glob("realign/*/lineage.json")]
    assert lineages and all(one["defense"] == "shrink:Shrink" and one["code"] for one in lineages)
    made = [json.loads(path.read_text())["inputs"] for path in Path("runs/store").glob("finetune/*/lineage.json")]
    assert any(one.get("losses") for one in made)
    report = Path("runs/extended/report.html").read_text(encoding="utf-8")
    assert "Climbing accuracy" in report and "elecom" not in report
