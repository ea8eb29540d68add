"""All mistakes in a sweep file are reported at once, by dotted key, before anything heavy is imported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_sweep import LEAST

from safecomm.errors import SpecError
from safecomm.spec import Sweep, read_sweep
from safecomm.spec.simulation import Simulation

GOOD = LEAST | {
    "arms": {
        "safe_instruct": [{"safe_instruct": {"ratio": {"grid": [0.01, 0.03]}}}],
        "safe_merge": [{"safe_merge": {"lowest": {"randint": [1, 8]}, "weight": {"uniform": [0.5, 0.9]}}}],
    },
}


def write(folder: Path, sweep: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def problems(folder: Path, overrides: list[str]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_sweep(write(folder, GOOD), overrides)
    return caught.value.problems


def test_resolved_sweep_reads_back_equal(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GOOD))
    resolved = tmp_path / "sweep.json"
    resolved.write_text(json.dumps(sweep.resolved()))
    assert read_sweep(resolved) == sweep


def test_reference_arms_may_be_listed_without_defenses(tmp_path: Path) -> None:
    assert "undefended" not in read_sweep(write(tmp_path, GOOD), ["arms.undefended=[]"]).arms
    (line,) = problems(tmp_path, ["arms.original=[{safe_lora: {lowest: 1}}]"])
    assert line.startswith("arms: original is a reference arm")


def test_trained_adapter_replaces_data(tmp_path: Path) -> None:
    given = ["finetune.data=[]", "finetune.adapter=extracted"]
    arms = "arms={safe_lora: [{safe_lora: {lowest: 1}}]}"
    assert read_sweep(write(tmp_path, GOOD), [*given, arms]).finetune.adapter == str(Path("extracted").absolute())
    (line,) = problems(tmp_path, given)
    assert line.startswith("arms: safe_instruct acts during training, but finetune.adapter is already trained")
    for wrong in (["finetune.data=[]"], ["finetune.adapter=extracted"]):
        assert "either data to train on or adapter" in problems(tmp_path, wrong)[0]


def test_incompatible_finetune_settings_are_rejected_by_key(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, ["finetune.offload=cpu"])
    assert line.endswith(
        "finetune.offload: zero: 0 can't offload; set zero: 1 or 2 (optimizer) or 3 (and weights), or offload: none"
    )
    (line,) = problems(tmp_path, ["finetune.zero=2", "finetune.offload.nvme=/nvme"])
    assert "finetune.offload: nvme needs zero: 3, not zero: 2" in line
    (line,) = problems(tmp_path, ["finetune.zero=3", "finetune.quantize=nf4"])
    assert "finetune.quantize: nf4 weights can't be sharded while a model is loaded" in line
    (line,) = problems(tmp_path, ["finetune.precision=fp32", "finetune.quantize=nf4"])
    assert "finetune.quantize: nf4 needs bf16 computation" in line
    for wrong in ("nvme", "{nmve: /nvme}", "{nvme: 3}"):
        (line,) = problems(tmp_path, ["finetune.zero=3", f"finetune.offload={wrong}"])
        assert "finetune.offload: must be none, cpu or {nvme: FOLDER}, not" in line


def test_a_simulation_belongs_to_the_simulated_engine_and_shows_only_there(tmp_path: Path) -> None:
    real, simulated = (read_sweep(write(tmp_path, GOOD), [f"evaluate.engine={name}"]) for name in ("vllm", "simulated"))
    assert (real.speed, simulated.speed) == (None, Simulation())
    assert "simulation" not in real.resolved()
    (line,) = problems(tmp_path, ["evaluate.engine=vllm", "simulation.clock=2"])
    assert "simulation is only for evaluate.engine: simulated" in line


def test_nvme_offload_survives_resolving(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GOOD), ["finetune.zero=3", "finetune.offload.nvme=disk"])
    resolved = tmp_path / "sweep.json"
    resolved.write_text(json.dumps(sweep.resolved()))
    assert read_sweep(resolved) == sweep
    assert sweep.resolved()["finetune"]["offload"] == {"nvme": str(Path("disk").absolute())}


def test_relative_paths_are_resolved(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GOOD), ["evaluate.task=[{name: teleqna, path: data/TeleQnA.txt}]"])
    assert sweep.evaluate.task[0].path == str(Path.cwd() / "data" / "TeleQnA.txt")
    home = read_sweep(write(tmp_path, GOOD), ["evaluate.task=[{name: teleqna, path: ~/TeleQnA.txt}]"])
    assert home.evaluate.task[0].path == str(Path.home() / "TeleQnA.txt")


def test_five_mistakes_are_five_lines_and_exit_code_2(tmp_path: Path) -> None:
    mistakes = [
        "finetune.zero=7",
        "finetune.data=[lab-telecm]",
        "search.trails=8",
        "evaluate.red_team=[lab-telecom]",
        "arms.safe_merge.0.safe_merge.weight.uniform=[0.9, 0.5]",
    ]
    arguments = [part for mistake in mistakes for part in ("--set", mistake)]
    command = [sys.executable, "-m", "safecomm", "run", str(write(tmp_path, GOOD)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    keys = [
        "finetune.data.0",
        "finetune.zero",
        "arms.safe_merge.0.safe_merge.weight.uniform",
        "evaluate.red_team.0",
        "search.trails: there is no such key; did you mean trials?",
    ]
    for key, line in zip(keys, lines, strict=True):
        assert key in line


def test_reading_a_sweep_imports_nothing_heavy() -> None:
    code = "import sys, safecomm.cli, safecomm.spec; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "safecomm.spec" in loaded
    assert not loaded & {"torch", "ray", "vllm", "wandb", "transformers", "pandas", "datasets", "deepspeed"}


def test_an_arm_has_one_defense_that_changes_the_model_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from safecomm.defenses import TrainingDefense\nclass Own(TrainingDefense):\n    name = 'own'\n"
    (tmp_path / "own_start.py").write_text(f"{code}    def start(self, base, aligned, targets): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = "defenses=[own_start:Own]"
    (said,) = problems(tmp_path, [own, "arms.x=[{lox: {directions: 2}}, {own: {}}]"])
    assert said == "arms: x: lox and own each change the model that is trained; keep one of them"
    (said,) = problems(tmp_path, ["arms.x=[{lox: {directions: 2}}, {constrained_sft: {}}]"])
    assert "x: the loss of constrained_sft may switch the adapter off" in said
    merge = "{safe_merge: {lowest: 3, weight: 0.5, combine: linear}}"
    (said,) = problems(tmp_path, [f"arms.x=[{{lox: {{directions: 2}}}}, {merge}]"])
    assert "x: lox raises the adapter's rank, but safe_merge merges factors of equal ranks" in said
    assert read_sweep(write(tmp_path, GOOD), [own, "arms.x=[{safe_instruct: {ratio: 0.1}}, {own: {}}]"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms.x=[{safe_lora: {}}]", "arms.x.0.safe_lora: set exactly one of threshold"),
        (
            "arms.x=[{safe_lora: {lowest: 1, threshold: 0.5}}]",
            "arms.x.0.safe_lora: set exactly one of threshold",
        ),
        ("arms.x=[{safe_lora: {threshold: 1.5}}]", "must be between -1 and 1, not 1.5"),
        ("arms.x=[{safe_lora: {threshold: {grid: [0.1, 3]}}}]", "must be between -1 and 1, not 3"),
        ("arms.x=[{safe_lora: {lowest: many}}]", "arms.x.0.safe_lora.lowest: input should be a valid integer"),
        ("arms.x=[{safe_lora: {lowest: {between: [1, 2]}}}]", "must be a number, exact, or one of {grid, choice"),
        ("arms.x=[{safe_lora: {lowest: 1}, safe_instruct: {ratio: 1}}]", "each step must name exactly one of"),
        (
            "arms.x=[{safe_lora: {lowest: 1}}, {safe_instruct: {ratio: 1}}]",
            "safe_instruct acts during training; put what trains first",
        ),
        ("arms.x=[{safe_lora: {lowest: 1}}, {safe_lora: {lowest: 2}}]", "a defense can appear only once"),
        ("search.arms={safe_lroa: {trials: 3}}", "search: arms.safe_lroa: there is no such arm"),
        ("search.algorithm=cmaes", "search: algorithm: cmaes supports one objective"),
        ("search.algorithm=grid", "search: algorithm: grid needs lists of values"),
        (
            "search.arms={safe_merge: {points: [{safe_merge.weight: 0.7}]}}",
            "search: arms.safe_merge.points: each point must set exactly",
        ),
        ("search.racing={rungs: [2]}", "search.racing"),
        ("arms.x=[{finetune: {}}]", "arms.x.0.finetune: set at least one of rank"),
        ("arms.x=[{safe_merge: {weight: exact, lowest: 3}}]", "must be a number, or one of {grid"),
        ("finetune.safety_data=null", "safe_instruct needs safety examples; set finetune.safety_data"),
        ("finetune.safe_adapter=null", "safe_merge needs a safe adapter"),
        ("finetune.batch_size=15", "finetune.batch_size 15 is not a multiple"),
        ("name=a b", "name: string should match pattern"),
        ("model.base=null", "model.base: input should be a valid string"),
        ("paper=safecom", "paper: there are no published results for 'safecom'; use one of safecomm, safemerge"),
        (
            "paper=safecomm",
            "paper: safecomm has no results for aligned on lab-telecom; it has results for Llama-2-7b-chat-hf",
        ),
        ("nonsense", "--set nonsense: write it as KEY=VALUE"),
        ("finetune.data.4=lab-telecom", "4 is not an index of the list; use 0 to"),
    ],
)
def test_mistakes_are_reported_with_their_key(tmp_path: Path, override: str, said: str) -> None:
    found = problems(tmp_path, [override])
    assert any(said in line for line in found), found
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "has no settings"),
        ("name: [", "is not valid YAML"),
        ("", "has no settings"),
        (b"\xff\xfe\x00", "text"),
    ],
)
def test_file_without_a_sweep_is_rejected(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError, match=said):
        read_sweep(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.yaml: can't be read"):
        read_sweep(tmp_path / "nowhere.yaml")


def test_set_replaces_single_values_and_whole_sections(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, GOOD), ["seeds=3", "finetune.lora.r=4", "search={trials: 2}"])
    assert (sweep.seeds, sweep.finetune.lora.r, sweep.search.trials) == (3, 4, 2)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms.safe_merge.0.safe_merge.weight.grid.0.x=1", "0 is 0.5 and has no keys; set it as a whole"),
        (f"{'a.' * 60}b=1", "has more than 50 parts"),
    ],
)
def test_a_key_inside_of_a_number_or_too_deep_is_refused(override: str, said: str, tmp_path: Path) -> None:
    arms = "arms={safe_merge: [{safe_merge: {lowest: 2, weight: {grid: [0.5, 0.7]}}}]}"
    with pytest.raises(SpecError, match=re.escape(said)):
        read_sweep(write(tmp_path, GOOD), [arms, override])


def test_every_field_is_documented() -> None:
    def undocumented(schema: dict[str, object]) -> list[str]:
        sections = {"Sweep": schema, **schema.get("$defs", {})}  # type: ignore[dict-item]
        return [
            f"{name}.{field}"
            for name, section in sections.items()
            for field, value in section.get("properties", {}).items()  # type: ignore[attr-defined]
            if "description" not in value
        ]

    assert undocumented(Sweep.model_json_schema()) == []


def test_user_file_becomes_a_benchmark(tmp_path: Path) -> None:
    own = ["evaluate.red_team=[{name: acme, path: acme.csv, prompt: question}]"]
    choices = "evaluate.task=[{name: exam, path: exam.csv, prompt: q, choices: [a, b], answer: key, first_option: 1}]"
    sweep = read_sweep(write(tmp_path, GOOD), [*own, choices])
    columns = sweep.evaluate.task[0].columns
    assert columns is not None and (columns.choices, columns.first) == (("a", "b"), 1)
    for wrong, said in (
        ("evaluate.red_team=[{name: acme, prompt: question}]", "set path too"),
        ("evaluate.red_team=[{name: acme, path: a.csv, category: c}]", "set prompt too"),
        ("evaluate.red_team=[{name: acme, path: a.csv, prompt: q, choices: o, answer: a}]", "have no choices"),
        ("evaluate.task=[{name: acme, path: a.csv, prompt: q}]", "need choices and answer"),
        ("evaluate.task=[{name: acme, path: a.csv, prompt: q, choices: o}]", "both choices and answer"),
        ("finetune.data=[{name: acme, path: a.csv, prompt: q}]", "to use your own file as train data, set response"),
    ):
        (line,) = problems(tmp_path, [wrong])
        assert said in line, line


def test_labels_follow_rays_selector_syntax(tmp_path: Path) -> None:
    labels = "cluster.finetune.labels={pool: train, market: '!spot', gpu: 'in(a100, h100)', ray.io/zone: ''}"
    assert read_sweep(write(tmp_path, GOOD), [labels]).cluster.finetune.labels["market"] == "!spot"
    for wrong in ("{pool: 'two words'}", "{pool: 'in()'}", "{a b: c}", "{pool: a&b}"):
        (line,) = problems(tmp_path, [f"cluster.target.labels={wrong}"])
        assert line.startswith("cluster.target.labels: ") and "ray start --labels" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b\n", "name is given twice"),
        ("arms:\n  x: []\n  x: [{scale: {factor: 0.5}}]\n", "x is given twice"),
        ("search: {trials: 1, trials: 2}\n", "trials is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Issue: YAML takes the last one, so an arm or a section was lost silently."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        read_sweep(path)


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "a b", "[red]", "\0", "x" * 61, "**", "."])
def test_an_arm_has_a_name_that_is_safe_in_paths_and_tables(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for an arm"):
        Sweep.model_validate(LEAST | {"arms": {name: []}})


@pytest.mark.parametrize("name", ["store", "x" * 101])
def test_a_sweep_can_not_be_called_like_the_store(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Sweep.model_validate(LEAST | {"arms": {}, "name": name})


@pytest.mark.parametrize(
    ("value", "said"), [("~no-such-user/x", "no such user"), ("a" * 300, "too long"), ("a\0b", "NUL")]
)
@pytest.mark.parametrize("key", ["storage", "model.base", "model.aligned", "evaluate.labels"])
def test_a_path_that_no_file_system_has_is_refused(key: str, value: str, said: str, tmp_path: Path) -> None:
    """Issue: `~nouser`, NUL and names that are too long ended in tracebacks."""
    path = write(tmp_path, GOOD)
    with pytest.raises(SpecError, match=said) as found:
        read_sweep(path, [f"{key}={json.dumps(value)}"])
    assert f"{key}: " in str(found.value)


def test_a_missing_file_names_the_bundled_sweep_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safecomm.spec import file

    monkeypatch.setattr(file, "INSTALLED", tmp_path / "share")
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "lab.yaml").write_text("name: lab")
    with pytest.raises(SpecError) as refused:
        read_sweep(tmp_path / "sweeps" / "lab.yaml")
    assert f"the bundled sweep of that name is {tmp_path / 'share' / 'lab.yaml'}" in refused.value.problems[0]
    with pytest.raises(SpecError) as refused:
        read_sweep(tmp_path / "other.yaml")
    assert "bundled" not in refused.value.problems[0]
