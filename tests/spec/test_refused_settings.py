"""Settings that would be accepted to fail or mislead later are refused with their key."""

import math
import sys
from pathlib import Path

import pytest

from safecomm.cli import main
from safecomm.cli.realign_options import level
from safecomm.data.rows import Prompt
from safecomm.errors import DataError, DefenseError, SpecError, UsageError
from safecomm.plan.data import check_enough
from safecomm.spec import read_sweep
from safecomm.statistics.selection import ModuleProfile, select

SWEEPS = Path(__file__).parents[2] / "sweeps"
LAB = SWEEPS / "lab.yaml"
BOTH = "[{name: lab-harm, limit: 40}, lab-harm]"
REFUSED = [
    *(
        (f"finetune.{key}={value}", f"finetune.{key}")
        for key in ("epochs", "learning_rate", "weight_decay", "warmup")
        for value in (".inf", ".nan", "1e308", "-1")
    ),
    *((f"finetune.lora.alpha={value}", "finetune.lora.alpha") for value in (".inf", ".nan", "1e300", "0")),
    *((f"{key}={value}", key) for key in ("search.seed", "evaluate.seed") for value in ("-1", "4294967296", "9" * 30)),
    ("cluster.gpu_memory=.inf", "cluster.gpu_memory"),
    ("cluster.gpus=10000000000", "cluster.gpus"),
    ("seeds=1000000", "seeds"),
    ("search.trials=100000000", "search.trials"),
    ("evaluate.samples=1000000", "evaluate.samples"),
    ("finetune.max_length=" + "9" * 40, "finetune.max_length: the number is too large"),
    ("search.racing={rungs: [0.4, 0.2]}", "search.racing.rungs: must rise"),
    ("search.racing={rungs: [0.2, 0.2]}", "search.racing.rungs: must rise"),
    ("search.objectives=[asr, asr]", "search.objectives: the objective asr is given twice"),
    (f"evaluate.red_team={BOTH}", "evaluate.red_team: the benchmark lab-harm is given twice"),
    ("finetune.lora.targets=[q_proj, q_proj]", "finetune.lora.targets: the module q_proj is given twice"),
    ("finetune.lora.targets=['']", "finetune.lora.targets"),
    ("arms={a: [{safe_lora: {threshold: {q_porj: 0.5}}}]}", "safe_lora selects among q_porj modules"),
    ("arms={a: [{safe_lora: {above_null: .nan}}]}", "above_null"),
    ("arms={a: [{safe_lora: {lowest: -1}}]}", "lowest"),
    ("arms={a: [{safe_lora: {lowest: {grid: [3, 3]}}}]}", "the value 3 is given twice"),
    ("arms={a: [{safe_lora: {rank: 4, threshold: 0.5, seed: -3}}]}", "seed"),
    ("evaluate.max_new_tokens=100000", "leaves no room for a prompt"),
    ("model.aligned=" + '"a\\nb"', "model.aligned: has a control character"),
    ("arms={a: [{safe_lora: {threshold: {uniform: [0, .inf]}}}]}", "threshold"),
    ("evaluate.grader={model: lab://grader, name: refusal}", "are called refusal; rename one"),
]


@pytest.mark.parametrize(("override", "said"), REFUSED, ids=[override for override, _ in REFUSED])
def test_a_setting_that_would_fail_later_is_refused(override: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_sweep(LAB, [override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("space", "point"),
    [
        ("{uniform: [0.1, 0.5]}", 0.7),
        ("{uniform: [0.1, 0.5]}", -1),
        ("{loguniform: [0.1, 0.5]}", 0.05),
        ("{choice: [0.1, 0.5]}", 0.3),
    ],
)
def test_a_first_point_outside_its_space_is_refused(space: str, point: float) -> None:
    arms = f"arms={{a: [{{scale: {{factor: {space}}}}}]}}"
    inside = "search.arms={a: {points: [{scale.factor: 0.1}]}}"
    assert read_sweep(LAB, [arms, inside, "search.algorithm=random"]).search.arms["a"].points
    with pytest.raises(SpecError, match=r"points: scale\.factor: .* is not in its search space"):
        read_sweep(
            LAB, [arms, f"search.arms={{a: {{points: [{{scale.factor: {point}}}]}}}}", "search.algorithm=random"]
        )


def test_a_first_point_beside_a_grid_keeps_the_settings_limits() -> None:
    arms, search = (
        "arms={a: [{safe_lora: {threshold: {grid: [0.5]}}}]}",
        "search.arms={a: {points: [{safe_lora.threshold: %s}]}}",
    )
    assert read_sweep(LAB, [arms, search % 0.6]).search.arms["a"].points
    with pytest.raises(SpecError, match=r"arms\.a\.points: safe_lora\.threshold.*: must be between -1 and 1, not 7"):
        read_sweep(LAB, [arms, search % 7])


def test_a_grid_of_a_million_combinations_is_refused_at_once() -> None:
    many = [n / 1000 for n in range(1000)]
    arms = f"arms={{a: [{{scale: {{factor: {{grid: {many}}}}}}}, {{drop: {{threshold: {{grid: {many}}}}}}}]}}"
    with pytest.raises(SpecError, match=r"the lists of a have 1,000,000 combinations"):
        read_sweep(LAB, [arms])


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "q_proj=nan", "q_proj=1,q_proj=2", "x", "q_proj", "=", "1=2=3"])
@pytest.mark.parametrize("way", ["threshold", "lowest", "quantile", "above_null"])
def test_an_option_for_selecting_modules_is_a_finite_number(way: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"--{way.replace('_', '-')}"):
        level(way, text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("way", ["threshold", "lowest", "quantile", "above_null"])
def test_modules_are_selected_by_finite_numbers(way: str, value: float) -> None:
    with pytest.raises(DefenseError, match=way):
        select([ModuleProfile("q_proj", 0.5, 0.5, 1.0, 1.0, 1.0)], {way: value})  # type: ignore[misc]


def test_a_benchmark_of_one_prompt_is_refused() -> None:
    sweep = read_sweep(LAB)
    prompts = [Prompt("lab-harm", "red_team", f"a {n}") for n in range(40)]
    with pytest.raises(
        DataError, match=r"evaluate\.red_team\.0 \(lab-harm\): has 1 prompts on the (search|report) split"
    ):
        check_enough(
            sweep, [next(p for p in prompts if p.side() == "search"), next(p for p in prompts if p.side() == "report")]
        )
    with pytest.raises(DataError, match="too few for an interval"):  # two wordings of one request are one
        check_enough(sweep, [Prompt("lab-harm", "red_team", f"a {n}", cluster="one") for n in range(40)])


@pytest.mark.parametrize("sweep", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_bundled_sweeps_are_accepted(sweep: Path) -> None:
    assert read_sweep(sweep).name


FLAGS = [
    ("plan", str(LAB), "--gpus", "nan"),
    ("plan", str(LAB), "--gpus", "inf"),
    ("plan", str(LAB), "--gpus", "-1"),
    ("gate", "run", "--max-asr", "nan"),
    ("gate", "run", "--min-accuracy", "nan"),
    ("gate", "run", "--max-over-refusal", "inf"),
    ("gate", "run", "--max-asr", "0.1", "--seed", "-1"),
    ("export", "run", "--out", "x", "--seed", str(1 << 63)),
    ("evaluate", "--model", "m", "--benchmark", "b", "--out", "o", "--seed", str(1 << 63)),
    ("evaluate", "--model", "m", "--benchmark", "b", "--out", "o", "--shuffle-options", "-1"),
    ("extract-lora", "--model", "m", "--reference", "r", "--out", "o", "--rank", "0"),
    ("extract-lora", "--model", "m", "--reference", "r", "--out", "o", "--rank", "4", "--seed", str(1 << 64)),
    ("lab", "build", "--out", "o", "--seed", str(1 << 64)),
    ("realign", "safe-lora", "--base=b", "--aligned=a", "--adapter=x", "--out=o", "--lowest", "nan"),
    ("realign", "scale", "--adapter=x", "--out=o", "--factor", "nan"),
    ("realign", "full-weights", "--base=b", "--aligned=a", "--model=m", "--out=o", "--lowest", "nan"),
]


@pytest.mark.parametrize("words", FLAGS, ids=" ".join)
def test_a_flag_that_is_no_usable_number_is_misuse(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["safecomm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and list(tmp_path.iterdir()) == []
