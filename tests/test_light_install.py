"""`LIGHT=1 scripts/install.sh` installs all that realigning an adapter needs; other commands say what is missing."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from safecomm import cli
from safecomm.defenses.adapter import Adapter, Factors

ROOT = Path(__file__).parents[1]
NEEDS = [line for line in (ROOT / "locks" / "realign-needs.txt").read_text().splitlines() if not line.startswith("#")]
RUN = """
import importlib.metadata, json, sys
from safecomm.cli import main
try:
    main()
finally:
    owners = importlib.metadata.packages_distributions()
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(json.dumps(sorted({owner.lower() for name in loaded for owner in owners.get(name, [])})), file=sys.stderr)
"""


def with_dependencies(packages: list[str]) -> set[str]:
    """Returns the packages and all that they need, as installed here."""
    found: set[str] = set()
    left = [_plain(name) for name in packages]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        left += [_plain(one.name) for one in needs if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture
def adapter(tmp_path: Path, lab: dict[str, Path]) -> Path:
    name, (height, width) = _shapes(lab["aligned"])[0]
    factors = Factors(torch.randn(2, width), torch.randn(height, 2), 1.0)
    Adapter({name: factors}, {"peft_type": "LORA", "target_modules": ["q_proj"]}, "test").save(tmp_path / "adapter")
    return tmp_path / "adapter"


def _shapes(model: Path) -> list[tuple[str, tuple[int, int]]]:
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.endswith("q_proj.weight")]  # noqa: SIM118, not a mapping
        return [(name.removesuffix(".weight"), tuple(file.get_slice(name).get_shape())) for name in names]


@pytest.mark.parametrize("words", [["profile"], ["realign", "safe-lora", "--lowest", "1", "--out", "OUT"]])
def test_realigning_loads_only_what_the_light_installation_has(
    words: list[str], adapter: Path, lab: dict[str, Path], tmp_path: Path
) -> None:
    models = ["--base", str(lab["base"]), "--aligned", str(lab["aligned"]), "--adapter", str(adapter)]
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    done = subprocess.run([sys.executable, "-c", RUN, *words, *models], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {_plain(name) for name in re.findall(r'"([^"]+)"', done.stderr.splitlines()[-1])}
    assert {"torch", "pydantic", "typer"} <= loaded
    optional = {"dill"}  # torch takes it where it is there
    assert loaded - with_dependencies(NEEDS) - {"safecomm"} - optional == set()


def test_the_other_commands_name_the_missing_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "safecomm: the package ray is not installed, which this command needs; install all of safecomm with "
        "scripts/install.sh\n"
    )
