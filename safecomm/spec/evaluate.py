"""The `evaluate` section: how all models of a sweep are measured."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from safecomm.data.rows import Kind
from safecomm.defenses.space import LocalPath, Seed, Strict, refuse_twice
from safecomm.spec.datasets import Dataset, DatasetRef, with_role
from safecomm.spec.engine import available_engine
from safecomm.spec.judges import MESSAGE_TOKENS, Attacker, Grader, Judge, JudgeRef, ModelRef, RefusalJudge


class Evaluate(Strict):
    """The benchmarks and judges with which all models of the sweep are measured."""

    red_team: Annotated[list[Annotated[Dataset, with_role("red_team")]], Field(min_length=1)]
    """Harmful prompts; the attack success rate is the share of unsafe answers."""
    over_refusal: list[Annotated[Dataset, with_role("over_refusal")]] = []
    """Harmless prompts; over-refusal is the share that the model refuses."""
    task: Annotated[list[Annotated[Dataset, with_role("task")]], Field(min_length=1)]
    """Questions about the fine-tune's task; accuracy is the share of correct answers."""
    judges: Annotated[list[Judge], Field(min_length=1)] = [JudgeRef(name="refusal")]
    """The judges of answers to harmful prompts.

    The first one determines the attack success rate; the others are reported as well.
    """
    labels: LocalPath | None = None
    """A CSV, JSON, JSON Lines or Parquet file of responses with human labels (`prompt, response, unsafe`).

    From it, each judge's sensitivity and specificity are estimated, and the report corrects attack success rates for
    the judge's errors.
    """
    grader: Grader | None = None
    """The chat model that compares free-form answers with reference answers, for task sets that need one."""
    refusal_judge: Annotated[RefusalJudge | None, Field(exclude_if=lambda judge: judge is None)] = None
    """The chat model that tells full compliance, partial and full refusal of harmless prompts apart; both kinds of
    refusal count. Without it, a list of refusal phrases decides."""
    attacker: Annotated[Attacker | None, Field(exclude_if=lambda attacker: attacker is None)] = None
    """The chat model that leads the conversations of the attack `multi_turn`. One that refuses to attack shows nothing:
    its turns are unscored."""
    sampling: Literal["greedy", "safecomm"] = "greedy"
    """`safecomm`: temperature 1, top-p 1, no top-k, as in the study (with `max_new_tokens: 512`)."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Answers per prompt with `sampling: safecomm`; intervals then treat a prompt's answers as one cluster."""
    seed: Seed = 0
    """Seed for sampling answers."""
    multiple_choice: Literal["likelihood", "generation"] = "likelihood"
    """Score the option letter with the highest likelihood, or the letter in the generated answer."""
    engine: Annotated[Literal["auto", "vllm", "transformers", "simulated"], Field(validate_default=True)] = "auto"
    """The inference engine. `auto` is vLLM if it is installed, else transformers. `simulated` rehearses the sweep: its
    engines and fine-tunes compute nothing and only take time (see `simulation`)."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Maximum tokens of an answer."""
    max_model_len: Annotated[int, Field(ge=16)] = 2048
    """Maximum tokens of a prompt and its answer together."""

    @field_validator("engine")
    @classmethod
    def engine_is_chosen(cls, engine: str) -> str:
        """Resolves `auto`, so that a run's sweep.json and store keys name the engine that was used."""
        return available_engine() if engine == "auto" else engine

    @field_validator("red_team", "over_refusal", "task")
    @classmethod
    def benchmarks_differ(cls, refs: list[DatasetRef]) -> list[DatasetRef]:
        """Rejects a benchmark that would count twice."""
        names = [ref.benchmark for ref in refs]
        if twice := [ref.benchmark for ref in refs if ref.attack and names.count(ref.benchmark) > 1]:
            raise ValueError(f"the benchmark {twice[0]} is given twice; remove one, or tell them apart by attack.name")
        refuse_twice("the benchmark", names)
        return refs

    @model_validator(mode="after")
    def judges_differ(self) -> Self:
        """Rejects two models, e.g. a judge and the grader, with the same name, by which their engines are found."""
        names = [ref.name for ref in self.everyone]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two judges, or a judge and the grader or attacker, are called {twice[0]}; rename one")
        return self

    @model_validator(mode="after")
    def conversations_have_an_attacker(self) -> Self:
        """Rejects conversations that nobody leads, and an attacker without any."""
        led = [ref.benchmark for ref in self.red_team if ref.attack and ref.attack.multi_turn]
        if led and self.attacker is None:
            raise ValueError(
                f"attacker: {led[0]} needs a model that leads its conversations; set attacker: {{model: ...}}"
            )
        if self.attacker and not led:
            raise ValueError(
                "attacker: only `attack: multi_turn` uses it; add that to a red_team benchmark, or remove it"
            )
        return self

    @model_validator(mode="after")
    def conversations_have_room(self) -> Self:
        """Rejects conversations that may not fit in the context, which would lose the turns that succeed most."""
        for ref in self.red_team:
            turns = ref.attack.multi_turn.turns if ref.attack and ref.attack.multi_turn else 0
            if (needed := turns * (MESSAGE_TOKENS + self.max_new_tokens)) > self.max_model_len:
                raise ValueError(
                    f"max_model_len ({self.max_model_len}): {turns} turns take up to {needed} tokens, {MESSAGE_TOKENS} "
                    "for each message and max_new_tokens for each answer; raise it, or lower turns or max_new_tokens"
                )
        return self

    @model_validator(mode="after")
    def greedy_has_one_answer(self) -> Self:
        """Rejects several samples with greedy decoding, which would all be the same."""
        if self.samples > 1 and self.sampling == "greedy":
            raise ValueError(
                "samples: greedy decoding gives one answer per prompt; set samples: 1 or sampling: safecomm"
            )
        return self

    @model_validator(mode="after")
    def a_prompt_has_room(self) -> Self:
        """Rejects answers as long as the context, which leave no token for a prompt."""
        if self.max_new_tokens >= self.max_model_len:
            raise ValueError(
                f"max_new_tokens ({self.max_new_tokens}) leaves no room for a prompt in max_model_len "
                f"({self.max_model_len}); lower the first or raise the second"
            )
        return self

    @property
    def datasets(self) -> dict[str, DatasetRef]:
        """The benchmarks by their keys in the sweep."""
        return {f"evaluate.{kind}.{at}": ref for kind in get_args(Kind) for at, ref in enumerate(getattr(self, kind))}

    @property
    def judge_models(self) -> dict[str, str]:
        """Name -> model of the judges, graders and attackers that need engines in this sweep."""
        return {ref.name: ref.model for ref in self.everyone if ref.model and ref.runs_here}

    @property
    def everyone(self) -> list[ModelRef]:
        """The judges, the grader, the judge of refusals and the attacker."""
        return [*self.judges, *(ref for ref in (self.grader, self.refusal_judge, self.attacker) if ref)]
