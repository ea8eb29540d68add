"""Judge models, which label an exchange; they run on their own engines or behind a URL."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from safecomm.judging.forms import Exchange, Form, Reply, form_of, template_text
from safecomm.judging.judges import Judge, OwnJudge, PhraseJudge
from safecomm.serving.chat import check_chat_template
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet, wait_for_fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.remote import remote_ask
from safecomm.serving.responses import Ask, Questions, Responses
from safecomm.serving.startup import fleet_seconds
from safecomm.serving.stream import ID, Request, stream
from safecomm.spec.cluster import Replicas
from safecomm.spec.judges import JudgeRef, ModelRef
from safecomm.storage.own_code import source_digest
from safecomm.storage.store import Store, digest
from safecomm.storage.versions import version

TEMPLATE_TOKENS = 1024
"""Maximum tokens that a judge's template adds to an exchange."""


@dataclass(frozen=True)
class ModelJudge:
    """A judge model. Its replies are stored like other models' answers."""

    name: str
    form: Form
    responses: Responses
    ask: Ask

    def verdicts(self, rows: pd.DataFrame) -> list[str]:
        """Labels responses; an empty one, or one on which the judge gave no verdict, is unscored.

        Args:
            rows: responses with the columns `text` (the prompt), `response` and, for a grader, `reference`.

        Raises:
            UnansweredError: if the judge could not be asked.
        """
        references = rows["reference"] if "reference" in rows else [""] * len(rows)
        return self.replies([Exchange(*row) for row in zip(rows["text"], rows["response"], references, strict=True)])

    def replies(self, exchanges: Sequence[Exchange]) -> list[str]:
        """Returns what it says of each exchange; `unscored` of one without a response, or if that can't be read.

        Raises:
            UnansweredError: if it could not be asked.
        """
        questions = {digest(one): self.form.question(one) for one in exchanges if one.response.strip()}
        found = self.responses.of(questions, self.ask) if questions else pd.DataFrame({ID: []})
        verdicts = {row[ID]: self.form.read(Reply(row["response"], row["scores"])) for _, row in found.iterrows()}
        return [verdicts.get(digest(one), "unscored") for one in exchanges]


@dataclass(frozen=True)
class Panel:
    """The judges and graders."""

    judges: Sequence[ModelRef]
    """The judges of answers to harmful prompts; the first one determines the attack success rate."""
    grader: ModelRef | None = None
    """The model that compares free-form answers with reference answers."""
    refusal_judge: ModelRef | None = None
    """The model that tells whether answers to harmless prompts refuse."""
    attacker: ModelRef | None = None
    """The model that leads conversations."""
    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    """Judge name -> model, for those that need engines here."""

    @property
    def names(self) -> list[str]:
        """The judges' names, the deciding one first."""
        return [judge.name for judge in self.judges]

    def as_key(self) -> list[list[str]]:
        """Returns what verdicts depend on."""
        return [[ref.name, identity(ref, self.models)] for ref in self.everyone]

    @property
    def everyone(self) -> list[ModelRef]:
        """The judges, the grader, the judge of refusals and the attacker."""
        return [*self.judges, *(ref for ref in (self.grader, self.refusal_judge, self.attacker) if ref)]

    def seated(self, store: Store, engine: str, start: Callable[[], None] = lambda: None) -> "Seated":
        """Returns the judges, ready for use; see `judges_of`."""

        def seats(ref: ModelRef | None) -> Judge | None:
            return judges_of([ref], self.models, store, engine, start)[0] if ref else None

        judges = judges_of(self.judges, self.models, store, engine, start)
        attacker = seats(self.attacker)
        assert attacker is None or isinstance(attacker, ModelJudge), "an attacker has a model"
        return Seated(judges, seats(self.grader), seats(self.refusal_judge), attacker)

    def check_chat_templates(self) -> None:
        """Checks that the judges' models take the chats that they will be asked.

        Raises:
            ModelError: if one has no chat template, or one that rejects such chats.
        """
        for ref in self.everyone:
            if ref.runs_here and "template" not in (question := form_of(ref).question(Exchange("a prompt", "a reply"))):
                check_chat_template(self.models[ref.name].path, question, f"judge {ref.name}")


@dataclass(frozen=True)
class Seated:
    """A panel that is ready for use."""

    judges: list[Judge]
    grader: Judge | None
    refusal_judge: Judge | None
    attacker: ModelJudge | None


def judges_of(
    judges: Sequence[ModelRef],
    models: Mapping[str, ModelFolder],
    store: Store,
    engine: str,
    start: Callable[[], None] = lambda: None,
) -> list[Judge]:
    """Returns the judges; judge models keep their replies in the store.

    Args:
        judges: references to the judges; the first one determines the attack success rate.
        models: judge name -> model, for those that need engines here.
        store: the store of the replies.
        engine: the inference engine.
        start: called before the first request to a model; starts its fleet if necessary.
    """

    def ask(name: str, questions: Questions) -> Iterator[pd.DataFrame]:
        start()
        wait_for_fleet(fleet_seconds(models[name].path), name)
        return (rows for _, rows in stream({name: Request(questions)}, fleet=name))

    def judge(ref: ModelRef) -> Judge:
        if isinstance(ref, JudgeRef) and ref.own:
            return OwnJudge(ref.name, ref.own)
        if ref.model is None:
            return PhraseJudge(ref.name)
        way = {"judge": identity(ref, models), "engine": "" if ref.url else engine, "version": version("replies")}
        form = form_of(ref)
        answers = remote_ask(ref.url, ref.model, form.tokens) if ref.url else partial(ask, ref.name)
        return ModelJudge(ref.name, form, Responses(store, way), answers)

    return [judge(ref) for ref in judges]


def identity(ref: ModelRef, models: Mapping[str, ModelFolder]) -> str:
    """Returns a digest of everything that determines a judge's verdicts: its model and its prompt."""
    settings = ref.model_dump(exclude={"name", "template"})
    if ref.runs_here:
        settings["model"] = models[ref.name].identity
    if isinstance(ref, JudgeRef) and ref.template:
        settings["template"] = template_text(Path(ref.template))
    if isinstance(ref, JudgeRef) and ref.own:
        settings["code"] = source_digest(ref.own)
    return digest(settings)


def judge_fleets(panel: Panel, target: Fleet, size: Replicas) -> list[Fleet]:
    """Returns a fleet for each judge that runs here, with the engine and lengths of the target's.

    Args:
        panel: the judges.
        target: the target's fleet.
        size: number and parallelism of each judge's engines.
    """

    def fleet(ref: ModelRef) -> Fleet:
        model, tokens = panel.models[ref.name], form_of(ref).tokens
        length = target.settings.max_model_len + TEMPLATE_TOKENS + tokens
        settings = EngineSettings(
            max_new_tokens=tokens,
            max_model_len=min(length, model.context or length),
            max_lora_rank=0,
            lora_targets=(),
        )
        return Fleet.of(target.engine, str(model.path), settings, size, target.settings.on_gpu, ref.name)

    return [fleet(ref) for ref in panel.everyone if ref.runs_here]
