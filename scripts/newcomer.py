"""Walks a newcomer's path: runs the commands of docs/quickstart.md in a new clone, and prints how long each took.

    python scripts/newcomer.py                    installs everything, as a newcomer does
    python scripts/newcomer.py --venv .venv       uses an environment that is installed already

The path leads from the clone over the demo and an own CSV file to the gate and the export.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
COMMAND = re.compile(r"[^\n]*<<'(?P<end>\w+)'\n.*?\n(?P=end)\n|(?:[^\n]*\\\n)*[^\n]+\n", re.S)
"""A command with its here-document, or with the lines that it goes on in."""
VERDICTS = (0, 1, 3)
"""Exit codes with which the gate says GO, NO-GO or INCONCLUSIVE."""
CLONE = "git clone URL safecomm && cd safecomm"


def commands(page: str) -> list[str]:
    """Returns the shell commands of a page in Markdown, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.S | re.M)
    return [re.sub(r" +# .*", "", one[0]).strip() for block in blocks for one in COMMAND.finditer(block)]


def main() -> int:
    """Runs the commands; returns 1 at the first one that fails."""
    parser = argparse.ArgumentParser(description="Runs the commands of docs/quickstart.md in a new clone.")
    parser.add_argument("--venv", type=Path, help="an environment to use, instead of installing one")
    venv = parser.parse_args().venv
    clone, *others = commands(PAGE.read_text(encoding="utf-8"))
    assert clone == CLONE, f"{PAGE} begins with {clone}"
    with tempfile.TemporaryDirectory() as folder:
        if not took(f"git clone --quiet {ROOT} safecomm", Path(folder)):
            return 1
        inside = Path(folder) / "safecomm"
        if venv:
            use(venv.resolve(), inside)
        return 0 if all(took(command, inside) for command in others) else 1


def use(venv: Path, clone: Path) -> None:
    """Gives a clone an environment. The files that it depends on get an old date, so that `make` keeps it."""
    os.environ["PYTHONPATH"] = str(clone)  # it may have the package of another clone
    (clone / ".venv").symlink_to(venv)
    for path in (clone / "pyproject.toml", clone / "scripts" / "install.sh", *(clone / "locks").iterdir()):
        os.utime(path, (0, 0))


def took(command: str, folder: Path) -> bool:
    """Runs a command and prints its seconds; returns whether it succeeded."""
    started = time.monotonic()
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
    print(f"{time.monotonic() - started:7.1f} s  {' '.join(command.split())[:90]}", flush=True)
    if done.returncode in (VERDICTS if " gate " in command else (0,)):
        return True
    print(done.stdout[-2000:], done.stderr[-2000:], f"exit code {done.returncode}", sep="\n", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
