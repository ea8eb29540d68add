"""The sample explorer of the report page: its data, compressed, and its scripts and styles.

The scripts are in `report/explorer/`. They use Tabulator (MIT), whose license stands beside it, for a table that draws
only the rows in view.
"""

import base64
import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from safecomm.report.run import Run
from safecomm.report.samples import ArmAnswers, SampleAnswer, Samples
from safecomm.statistics.metric_table import ASR, METRICS
from safecomm.storage.store import digest

MOST_INSIDE = 20_000_000
"""Bytes of compressed answers that the page holds; more go into a file beside it."""
SCRIPTS = ("data", "filters", "link", "table", "marks", "sample", "keys", "print", "form", "explorer", "main")
"""Files of `report/explorer/`, in the order of use."""
FOLDER = files("safecomm.report") / "explorer"


@dataclass(frozen=True)
class Packed:
    """The explorer's data as text: JSON, compressed, in Base64."""

    text: str
    answers: int
    is_beside: bool
    """Whether it goes into a file beside the page."""
    split: str
    """What the answered prompts belong to."""

    @property
    def script(self) -> str:
        """The content of the file beside the page: a script, because pages from disk can't read any other file."""
        return f'window.packedAnswers = "{self.text}";\n'

    @property
    def nonce(self) -> str:
        """What the page's own scripts are named by, so that the browser runs no others; no answer can contain it."""
        return digest(["scripts", self.text])


def packed(run: Run, found: Samples, most_inside: int = MOST_INSIDE) -> Packed:
    """Packs the answers.

    Args:
        run: the run.
        found: its answers.
        most_inside: the most bytes that the page itself is to hold.
    """
    # Half of a surrogate pair has no UTF-8; JSON's escape stands for it.
    text = json.dumps(_columns(run, found), ensure_ascii=False).encode("utf-8", "backslashreplace")
    small = gzip.compress(text, compresslevel=6, mtime=0)
    answers = sum(len(arm.answers) for arm in found.arms)
    return Packed(base64.b64encode(small).decode("ascii"), answers, len(small) > most_inside, found.split)


def scripts() -> Markup:
    """Returns the scripts, with Tabulator and its license first."""
    license_text = _read("tabulator.LICENSE").replace("*/", "")
    own = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    return Markup(f'/*\n{license_text}*/\n{_read("tabulator.min.js")}\n(() => {{\n"use strict";\n{own}}})();\n')


def styles() -> Markup:
    """Returns the styles."""
    return Markup(_read("tabulator.min.css") + _read("explorer.css"))


def _read(name: str) -> str:
    """Returns a file of the explorer, without the address of its source map, which the page can't load."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if "# sourceMappingURL=" not in line) + "\n"


def _columns(run: Run, found: Samples) -> dict[str, Any]:
    """Returns the answers by column, which takes less room than by row."""
    first = next((arm.arm for arm in found.arms if arm.arm == "undefended"), None)
    return {
        "run": run.sweep["name"],
        "key": digest([run.sweep["name"], run.sweep["model"]["aligned"]]),  # marks name the evaluation themselves
        "judges": [*run.judge_names[:1], *found.judges],
        "harmful": ASR.kind,
        "scored": [word for metric in METRICS for word in (metric.hit, metric.miss)],
        "shown": [first, next((arm.arm for arm in found.arms if arm.recommended), None)],
        "prompts": {
            name: [getattr(prompt, name) for prompt in found.prompts]
            for name in ("id", "kind", "benchmark", "attack", "category", "text")
        },
        "arms": [_arm(found, arm) for arm in found.arms],
    }


def _arm(found: Samples, arm: ArmAnswers) -> dict[str, Any]:
    """Returns an arm's answers in the order of the prompts; null where it has none."""
    answers: list[SampleAnswer | None] = [arm.answers.get(prompt.id) for prompt in found.prompts]
    texts = {
        place: answer.text
        for place, (prompt, answer) in enumerate(zip(found.prompts, answers, strict=True))
        if answer and answer.text != prompt.text
    }
    return {
        "arm": arm.arm,
        "settings": arm.settings,
        "evaluation": arm.evaluation,
        "row": [answer.row if answer else None for answer in answers],
        "response": [answer.response if answer else None for answer in answers],
        "verdict": [answer.verdict if answer else None for answer in answers],
        "others": [[answer.others[at] if answer else "" for answer in answers] for at in range(len(found.judges))],
        "tried": [place for place, answer in enumerate(answers) if answer and answer.tried],
        "texts": texts,
    }
