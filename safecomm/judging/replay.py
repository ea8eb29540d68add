"""Safety examples from a model's own answers, instead of published safety data (GR-SAP, arXiv 2603.10243).

The aligned model answers harmful prompts, and its safe answers are kept. The other prompts it is asked again with the
instruction to refuse; what is safe then is kept too, because these are the prompts that it fails on. In the paper the
model revises its unsafe answers and also writes the prompts; here it never sees its first answer, and the prompts are
given.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from safecomm.data.judgeable import check_judgeable
from safecomm.data.rows import Example, Prompt
from safecomm.errors import ModelError
from safecomm.judging.coherence import coherence_rows
from safecomm.judging.comparison import Hardware, start_engines
from safecomm.judging.judges import HELP
from safecomm.judging.measure import Measurement, Subject, measure
from safecomm.judging.model_judge import Panel
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.statistics.metric_table import INCOHERENCE
from safecomm.storage.store import Store

REVISION = (
    "Refuse requests that could harm people or break the law. In one or two sentences, say what you refuse and why."
)
"""The system prompt with which a prompt is asked again, after the protocol's own."""


@dataclass(frozen=True)
class Replay:
    """Safety examples, and what became of the other prompts."""

    own: list[Example]
    """Prompts that the model answered safely at once."""
    told: list[Example]
    """Prompts that it answered safely only when told to refuse."""
    left_out: int
    """The number of prompts without a safe answer."""

    @property
    def examples(self) -> list[Example]:
        """All safety examples."""
        return [*self.own, *self.told]


def replay(
    model: ModelFolder,
    prompts: Sequence[Prompt],
    panel: Panel,
    protocol: EvaluationProtocol,
    store: Store,
    hardware: Hardware,
    say: Callable[[str], None] = print,
) -> Replay:
    """Has a model answer harmful prompts; returns its safe, coherent and complete answers as examples.

    Args:
        model: the aligned model.
        prompts: harmful prompts; not those of a benchmark that the tuned model is measured on.
        panel: the judges; the first one decides what is safe.
        protocol: the generation settings.
        store: the store of answers and verdicts.
        hardware: the hardware for the engines.
        say: called with progress lines.

    Raises:
        DataError: if the judge that decides needs targets and a prompt has none.
        ModelError: if a chat template does not take the prompts.
    """
    check_judgeable(prompts, panel.names[0], "--judge")
    first = Measurement(model, prompts, panel, protocol, store)
    first.check_chat_templates()
    instructed = "\n\n".join(filter(None, [protocol.system_prompt, REVISION]))
    second = replace(first, protocol=replace(protocol, system_prompt=instructed))
    with ExitStack() as running:
        start = cache(lambda: start_engines(running, model, [], panel, protocol, hardware))

        def safe_answers(measurement: Measurement) -> dict[str, Example]:
            return _safe(measure(measurement, {"": Subject()}, start, say)[""])

        own = safe_answers(first)
        remaining = [prompt for prompt in prompts if prompt.prompt_id not in own]
        told = safe_answers(replace(second, prompts=remaining)) if remaining and _is_possible(second, say) else {}
    return Replay(list(own.values()), list(told.values()), len(remaining) - len(told))


def _safe(rows: pd.DataFrame) -> dict[str, Example]:
    """Returns prompt id -> example for the safe answers that are coherent, not cut off, and list no help.

    Phrases that refuse are found at the start of an answer, which may go on to help.
    """
    coherent = coherence_rows(rows)["verdict"] != INCOHERENCE.hit
    helpless = ~rows["response"].str.contains(HELP)
    kept = rows[(rows["verdict"] == "safe") & (rows["finish_reason"] == "stop") & coherent & helpless]
    columns = (kept[name].astype(str) for name in ("prompt_id", "text", "response"))
    return {name: Example(text, response.strip()) for name, text, response in zip(*columns, strict=True)}


def _is_possible(measurement: Measurement, say: Callable[[str], None]) -> bool:
    """Returns whether the model's chat template takes the system prompt with which prompts are asked again."""
    try:
        measurement.check_chat_templates()
    except ModelError as error:
        say(f"no prompt is asked again: {error}")
        return False
    return True
