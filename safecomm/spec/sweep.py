"""A whole sweep: every section, its meaning and its limits."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from safecomm.defenses.registry import DEFENSES, defense_of
from safecomm.defenses.space import Exact, Grid, LocalPath, Strict
from safecomm.spec.arms import Step, by_own_names, dimensions
from safecomm.spec.datasets import Dataset, with_role
from safecomm.spec.engine import available_engine
from safecomm.spec.finetune import Finetune
from safecomm.spec.judges import Grader, Judge, JudgeRef
from safecomm.spec.published import find_published
from safecomm.spec.search import PUBLISHED, Search
from safecomm.statistics.domain import DOMAIN_NAME, TELECOM, domain_of
from safecomm.storage.own_code import as_value_error, is_dotted, source_digest

ORIGINAL, UNDEFENDED = REFERENCE_ARMS = ("original", "undefended")
"""The aligned model as it is, and fine-tuned without a defense."""


class Model(Strict):
    """One model before and after its alignment."""

    base: str
    """The pre-trained weights: a folder, a hub id (`ORG/NAME` or `ORG/NAME@REVISION`), or `lab://base`."""
    aligned: str
    """The chat or instruct weights that are fine-tuned: a folder, a hub id, or `lab://aligned`."""
    system_prompt: str | None = None
    """A system prompt for every evaluation. None by default, as in the study."""


class Evaluate(Strict):
    """What every model of the sweep is measured on."""

    red_team: Annotated[list[Annotated[Dataset, with_role("red_team")]], Field(min_length=1)]
    """Harmful prompts; the attack success rate is the share answered unsafely."""
    over_refusal: list[Annotated[Dataset, with_role("over_refusal")]] = []
    """Harmless prompts; over-refusal is the share refused."""
    task: Annotated[list[Annotated[Dataset, with_role("task")]], Field(min_length=1)]
    """Questions on what the fine-tune teaches; accuracy is the share answered correctly."""
    judges: Annotated[list[Judge], Field(min_length=1)] = [JudgeRef(name="refusal")]
    """Who labels answers to harmful prompts.

    The first decides the attack success rate, the others are reported beside it.
    """
    labels: LocalPath | None = None
    """A CSV, JSON, JSON Lines or Parquet file of responses that people have judged (`prompt, response, unsafe`).

    It tells each judge's sensitivity and specificity; the report gives the attack success rates without its errors.
    """
    grader: Grader | None = None
    """The chat model that compares free-form answers with the reference answer, for task sets that need one."""
    sampling: Literal["greedy", "safecomm"] = "greedy"
    """`safecomm`: temperature 1, top-p 1, no top-k, as in the study (with `max_new_tokens: 512`)."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers to each prompt under `sampling: safecomm`; intervals then take a prompt's answers as one group."""
    seed: int = 0
    """Of the sampling."""
    multiple_choice: Literal["likelihood", "generation"] = "likelihood"
    """Whether the likeliest letter counts, or the one that the model writes."""
    engine: Annotated[Literal["auto", "vllm", "transformers"], Field(validate_default=True)] = "auto"
    """What runs the models. `auto` is vLLM where it is installed, transformers elsewhere."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer."""
    max_model_len: Annotated[int, Field(ge=16)] = 2048
    """Longest prompt and answer together."""

    @field_validator("engine")
    @classmethod
    def engine_is_chosen(cls, engine: str) -> str:
        """Settles `auto`, so that a run's sweep.json and its keys name the engine that answered."""
        return available_engine() if engine == "auto" else engine

    @field_validator("judges")
    @classmethod
    def judges_differ(cls, judges: list[JudgeRef]) -> list[JudgeRef]:
        """Refuses two judges of one name."""
        if len({judge.name for judge in judges}) < len(judges):
            raise ValueError("two judges have the same name")
        return judges

    @model_validator(mode="after")
    def greedy_has_one_answer(self) -> Self:
        """Refuses several answers that would all be the same."""
        if self.samples > 1 and self.sampling == "greedy":
            raise ValueError("samples: greedy decoding gives one answer a prompt; several need sampling: safecomm")
        return self

    @property
    def judge_models(self) -> dict[str, str]:
        """Name -> model of the judges, and of the grader, that run on engines of ours."""
        asked = [*self.judges, *([self.grader] if self.grader else [])]
        return {judge.name: judge.model for judge in asked if judge.model and judge.runs_here}


NAME = "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
KEY = re.compile(rf"([a-z0-9.-]{{1,253}}/)?{NAME}")
SELECTOR = re.compile(rf"!?({NAME})?|!?in\({NAME}(, ?{NAME})*\)")


def selects_nodes(labels: dict[str, str]) -> dict[str, str]:
    """Refuses what Ray takes for no selection of nodes."""
    for key, value in labels.items():
        if not KEY.fullmatch(key) or not SELECTOR.fullmatch(value):
            raise ValueError(
                f"{key}: {value} selects no node; give a label's name and value as in `ray start --labels`, or "
                '"!VALUE", "in(A,B)", "!in(A,B)"'
            )
    return labels


Labels = Annotated[dict[str, str], AfterValidator(selects_nodes)]
"""Labels that a node must have to be taken (`ray start --labels`, `labels` in a cluster file or a RayCluster)."""


class FinetuneWorkers(Strict):
    """Who trains."""

    workers: Annotated[int, Field(ge=1)] = 2
    """Data-parallel ranks of one fine-tune, each with a GPU where there are any."""
    labels: Labels = {}
    """Of the nodes that train; any node where there are none."""
    spread: bool = False
    """Put the ranks on different nodes where there are enough, for more memory each, and not on as few as hold them."""


class Replicas(Strict):
    """The vLLM engines of one model, which all trials share."""

    replicas: Annotated[int, Field(ge=1)] = 1
    """Engines. A phased sweep without `labels` here starts more of them where GPUs are left."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs among which each layer of an engine is split."""
    pipeline_parallel: Annotated[int, Field(ge=1)] = 1
    """Groups of such GPUs among which an engine's layers are dealt out, e.g. one a node."""
    labels: Labels = {}
    """Of the nodes that the engines run on; any node where there are none."""
    scale_to_zero: bool = False
    """Give the engines back while nobody asks them, and start them again when somebody does."""

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel * self.pipeline_parallel


class Cluster(Strict):
    """What the sweep may use."""

    finetune: FinetuneWorkers = FinetuneWorkers()
    """The fine-tunes."""
    target: Replicas = Replicas()
    """The engines that answer the prompts."""
    judge: Replicas = Replicas()
    """The engines of each judge that is a model."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs to count on where the cluster starts nodes when there is work for them; those that it has, if they are more.
    """
    gpu_memory: Annotated[float, Field(gt=0)] | None = None
    """GiB of one GPU. With it, a sweep that can't fit is refused before anything starts."""
    phased: bool = False
    """Make the shared fine-tunes first, then start the engines of the search; each of the two gets every GPU."""
    concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time. By default two without GPUs; otherwise as many fine-tunes as GPUs allow, and then eight trials
    per replica."""


class Wandb(Strict):
    """Where Weights & Biases keeps the runs."""

    project: str = "safecomm"
    """Project."""
    entity: str | None = None
    """Team or user; W&B's default otherwise."""


class Tracking(Strict):
    """Experiment tracking."""

    wandb: Wandb | None = Wandb()
    """`null` turns it off."""


def _training_steps(chain: list[Step]) -> str:
    known = [name for name, defense in DEFENSES.items() if defense.trains]
    return " and ".join(dict.fromkeys([*known, *(step.name for step in chain if step.trains)]))


class Sweep(Strict):
    """One study: a model, its task data, the arms to compare, the benchmarks and the search."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder and the W&B group."""
    domain: Annotated[str, Field(pattern=DOMAIN_NAME)] = TELECOM.name
    """What the fine-tune teaches, in any word.

    `medical` gives "Medical accuracy" in tables and figures, the tag `medical` in model cards, and "a medical question"
    in what the grader is told.
    """
    model: Model
    """The model under study."""
    finetune: Finetune
    """The fine-tune under study."""
    defenses: list[str] = []
    """Defenses of your own, `my_package.my_module:MyDefense`; arms then name them as the classes do."""
    arms: dict[str, list[Step]]
    """Chains of defenses, by name. `original` and `undefended` are always measured."""
    evaluate: Evaluate
    """The benchmarks."""
    search: Search = Search()
    """The search."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Every point is trained and measured with seeds 0 to seeds - 1."""
    cluster: Cluster = Cluster()
    """The hardware."""
    tracking: Tracking = Tracking()
    """The tracking."""
    storage: str = "runs"
    """Folder for the store and the run folders; on a cluster, one that every node sees, or `s3://` or `gs://BUCKET/PREFIX`.
    """
    paper: str | None = None
    """`safecomm` or `safemerge`: the sweep repeats this study, and its report sets the published numbers beside."""

    @field_validator("defenses")
    @classmethod
    def own_defenses_can_be_loaded(cls, defenses: list[str]) -> list[str]:
        """Refuses a user's own defenses that can't be imported, or that two of them have one name."""
        names = []
        for reference in defenses:
            if not is_dotted(reference):
                raise ValueError(
                    f"{reference}: write your own defense as MODULE:CLASS; those of safecomm need no entry"
                )
            with as_value_error():
                names.append(defense_of(reference).name)
        if len(set(names)) < len(names):
            raise ValueError(f"two defenses have the same name; there are {', '.join(names)}")
        return defenses

    @field_validator("arms", mode="before")
    @classmethod
    def own_defenses_go_by_their_names(cls, arms: Any, info: ValidationInfo) -> Any:
        """Replaces the names of a user's own defenses by their dotted names."""
        if "defenses" not in info.data:
            return {}  # they are told about already, and the arms that name them can't be read
        if not isinstance(arms, dict):
            return arms
        own = {defense_of(reference).name: reference for reference in info.data["defenses"]}
        return {name: by_own_names(chain, own) for name, chain in arms.items()}

    @field_validator("arms")
    @classmethod
    def arms_make_sense(cls, arms: dict[str, list[Step]]) -> dict[str, list[Step]]:
        """Refuses chains that can't be carried out."""
        for name, chain in arms.items():
            steps = [step.name for step in chain]
            if name in REFERENCE_ARMS and chain:
                raise ValueError(f"{name} is a reference arm and takes no defenses; give the chain another name")
            if len(set(steps)) < len(steps):
                raise ValueError(f"{name}: a defense comes at most once in a chain")
            if [step.trains for step in chain] != sorted((step.trains for step in chain), reverse=True):
                raise ValueError(f"{name}: {_training_steps(chain)} change the training, so they come first")
        return {name: chain for name, chain in arms.items() if name not in REFERENCE_ARMS}

    @field_validator("arms")
    @classmethod
    def defenses_have_their_data(cls, arms: dict[str, list[Step]], info: ValidationInfo) -> dict[str, list[Step]]:
        """Refuses defenses whose safety data the sweep does not name."""
        finetune: Finetune | None = info.data.get("finetune")
        steps = {step.name: step for chain in arms.values() for step in chain}.values()
        if finetune is None:
            return arms
        for step in steps:
            if "safety_data" in step.settings.needs and finetune.safety_data is None:
                raise ValueError(f"{step.name} draws from finetune.safety_data; name a dataset there")
            if step.trains and finetune.adapter:
                trained = "but finetune.adapter is trained already"
                raise ValueError(f"{_training_steps(list(steps))} change the training, {trained}")
            if "safe" in step.settings.needs and finetune.safe_adapter is None:
                raise ValueError(f"{step.name} needs a safe adapter; say how it is trained under finetune.safe_adapter")
        return arms

    @field_validator("search")
    @classmethod
    def searches_fit_their_arms(cls, search: Search, info: ValidationInfo) -> Search:
        """Refuses searches of arms that there are not, and those that can't search what there is."""
        arms: dict[str, list[Step]] = info.data.get("arms", {})
        if unknown := sorted(set(search.arms) - set(arms)):
            raise ValueError(f"arms.{unknown[0]}: there is no such arm; there are {', '.join(arms)}")
        for name, chain in arms.items():
            own, spaces = search.of(name), dimensions(chain)
            ranges = [key for key, space in spaces.items() if not isinstance(space, Grid | Exact)]
            if own.algorithm == "grid" and ranges:
                raise ValueError(
                    f"algorithm: grid tries every value, and {ranges[0]} of {name} is a range; list values"
                )
            if own.algorithm == "cmaes" and ranges and len(search.objectives) > 1:
                raise ValueError("algorithm: cmaes takes one objective; name one in search.objectives, or take tpe")
            for point in own.points:
                if missing := set(spaces) ^ set(PUBLISHED.keys() & set(spaces) if point == "published" else point):
                    raise ValueError(f"arms.{name}.points: give each of {', '.join(spaces)}, not {sorted(missing)[0]}")
        return search

    @field_validator("paper")
    @classmethod
    def paper_has_published_it(cls, paper: str | None, info: ValidationInfo) -> str | None:
        """Refuses a study that publishes nothing of the sweep's model and data."""
        model, finetune = info.data.get("model"), info.data.get("finetune")
        if paper and model and finetune:
            find_published(paper, model.aligned, [ref.name for ref in finetune.data])
        return paper

    @field_validator("evaluate")
    @classmethod
    def grader_is_told_the_domain(cls, evaluate: Evaluate, info: ValidationInfo) -> Evaluate:
        """Writes the domain's rubric into the sweep, so that its resolved form and its keys say what was asked."""
        if evaluate.grader is None or "domain" not in info.data:
            return evaluate
        return evaluate.model_copy(update={"grader": evaluate.grader.told_of(domain_of(info.data["domain"]))})

    @model_validator(mode="after")
    def batch_is_divisible(self) -> Self:
        """Refuses batches that the workers can't share evenly."""
        share = self.finetune.micro_batch_size or 1
        if self.finetune.batch_size % (self.cluster.finetune.workers * share):
            raise ValueError(
                f"finetune.batch_size {self.finetune.batch_size} is not a multiple of cluster.finetune.workers x "
                f"finetune.micro_batch_size = {self.cluster.finetune.workers * share}"
            )
        return self

    @property
    def own_code(self) -> dict[str, str]:
        """The user's own code that results depend on: dotted name -> digest of its file."""
        finetune, evaluate = self.finetune, self.evaluate
        data = [*finetune.data, finetune.safety_data, finetune.safe_adapter and finetune.safe_adapter.data]
        data += [*evaluate.red_team, *evaluate.over_refusal, *evaluate.task]
        own = {step.reference for chain in self.arms.values() for step in chain if is_dotted(step.reference)}
        own |= {ref.own for ref in [*data, *evaluate.judges] if ref and ref.own}
        return {name: source_digest(name) for name in sorted(own)}

    def resolved(self) -> dict[str, Any]:
        """Returns the whole sweep as JSON-able values; reading them gives the same sweep."""
        values = self.model_dump(mode="json", exclude={"arms"})
        return values | {
            "arms": {name: [s.model_dump(mode="json", exclude_none=True) for s in c] for name, c in self.arms.items()}
        }
