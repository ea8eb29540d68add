"""The sweep file: every field, its meaning and its limits. Every mistake is found here, before anything runs.

Reading a sweep imports neither torch, ray, vllm nor wandb, so a laptop can check one in a second.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from safecomm.data.registry import DATASETS
from safecomm.space import Real, Strict, Whole, values_of

REFERENCE_ARMS = ("original", "undefended")
Metric = Literal["asr", "accuracy", "over_refusal"]


def _within(low: float, high: float) -> AfterValidator:
    """Limits a searchable number, whichever way it is given."""

    def check(value: object) -> object:
        for number in values_of(value):
            if not low <= number <= high:
                raise ValueError(f"must lie between {low:g} and {high:g}, not {number:g}")
        return value

    return AfterValidator(check)


class DatasetRef(Strict):
    """A dataset of `safecomm data list`, from where it lives or from a local copy. A bare name is short for `{name: ...}`."""

    name: str
    """The dataset's name in `safecomm data list`."""
    path: str | None = None
    """A local file or folder in the dataset's own format; without it the dataset comes from its hub or is generated."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only this many rows, drawn by a fixed seed."""

    @field_validator("name")
    @classmethod
    def name_is_known(cls, name: str) -> str:
        """Refuses names that the registry lacks."""
        if name not in DATASETS:
            raise ValueError(f"there is no dataset {name!r}; `safecomm data list` shows: {', '.join(sorted(DATASETS))}")
        return name


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Dataset = Annotated[DatasetRef, BeforeValidator(_named)]


def _with_role(role: str) -> AfterValidator:
    def check(dataset: DatasetRef) -> DatasetRef:
        if role not in DATASETS[dataset.name].roles:
            fitting = ", ".join(sorted(name for name, entry in DATASETS.items() if role in entry.roles))
            raise ValueError(f"{dataset.name} can't serve as {role} data; these can: {fitting}")
        return dataset

    return AfterValidator(check)


TrainData = Annotated[Dataset, _with_role("train")]
SafetyData = Annotated[Dataset, _with_role("safety")]


class Model(Strict):
    """One model before and after its alignment."""

    base: str
    """The pre-trained weights: a folder, a hub id, or `lab://base`."""
    aligned: str
    """The chat or instruct weights that are fine-tuned: a folder, a hub id, or `lab://aligned`."""
    system_prompt: str | None = None
    """A system prompt for every evaluation. None by default, as in the study."""


class Lora(Strict):
    """The adapter that a fine-tune trains."""

    r: Annotated[int, Field(ge=1, le=512)] = 8
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    targets: Annotated[list[str], Field(min_length=1)] = ["q_proj", "v_proj"]
    """The linear modules that get an adapter."""


class SafeAdapter(Strict):
    """The adapter tuned on safety data alone, which SafeMERGE merges with."""

    data: SafetyData
    """Harmful requests with safe answers."""
    epochs: Annotated[float, Field(gt=0)] = 10.0
    """Passes over the data."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate."""


class Finetune(Strict):
    """The telecom fine-tune that every arm but `original` starts from."""

    data: Annotated[list[TrainData], Field(min_length=1)]
    """Telecom training sets, concatenated."""
    safety_data: SafetyData | None = None
    """Where SafeInstruct draws its examples from."""
    safe_adapter: SafeAdapter | None = None
    """How SafeMERGE's safe adapter is trained."""
    lora: Lora = Lora()
    """The adapter."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the data."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples per optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Examples per forward pass of one worker; the rest of the batch is accumulated. By default all of the worker's share."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens per example; longer ones are cut."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers (1 optimizer, 2 + gradients, 3 + weights)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 where there is hardware for it."""
    save_every: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between checkpoints, from which an interrupted fine-tune goes on."""


class SafeInstruct(Strict):
    """Mix safety examples into the telecom data (Bianchi et al., arXiv 2309.07875)."""

    ratio: Annotated[Real, _within(1e-5, 10)]
    """Safety examples per telecom example."""


class Selecting(Strict):
    """A defense that acts on the modules whose update disagrees most with the alignment, by rho."""

    threshold: Annotated[Real, _within(-1, 1)] | None = None
    """Act on the modules up to this rho."""
    lowest: Annotated[Whole, _within(0, math.inf)] | None = None
    """Act on this many modules, those of the lowest rho."""

    @model_validator(mode="after")
    def one_way_of_selecting(self) -> Self:
        """Refuses none or several ways of choosing the modules."""
        if (self.threshold is None) == (self.lowest is None):
            raise ValueError("give either threshold or lowest")
        return self


class SafeLora(Selecting):
    """Project the selected modules onto the alignment subspace (SafeLoRA, arXiv 2405.16833)."""


class SafeMerge(Selecting):
    """Merge the selected modules with a safe adapter's (SafeMERGE, arXiv 2503.17239)."""

    weight: Annotated[Real, _within(0, 1)]
    """Weight of the fine-tuned adapter; the safe adapter gets the rest."""
    combine: Literal["cat", "linear"] = "cat"
    """`cat`: the exact weighted sum. `linear`: PEFT's, which the published code uses; it adds cross terms."""


class Defense(Strict):
    """One step of an arm: one defense and its settings."""

    safe_instruct: SafeInstruct | None = None
    """Safety examples in the training data."""
    safe_lora: SafeLora | None = None
    """Projection of unsafe modules."""
    safe_merge: SafeMerge | None = None
    """Merging of unsafe modules with a safe adapter."""

    @model_validator(mode="after")
    def one_defense_a_step(self) -> Self:
        """Refuses steps that name none or several defenses."""
        if len(self.model_fields_set) != 1:
            raise ValueError(f"each step names one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def name(self) -> str:
        """The defense's name."""
        return next(iter(self.model_fields_set))

    @property
    def settings(self) -> SafeInstruct | SafeLora | SafeMerge:
        """The defense's settings."""
        value: SafeInstruct | SafeLora | SafeMerge = getattr(self, self.name)
        return value


class Evaluate(Strict):
    """What every model of the sweep is measured on."""

    red_team: Annotated[list[Annotated[Dataset, _with_role("red_team")]], Field(min_length=1)]
    """Harmful prompts; the attack success rate is the share answered unsafely."""
    over_refusal: list[Annotated[Dataset, _with_role("over_refusal")]] = []
    """Harmless prompts; over-refusal is the share refused."""
    telecom: Annotated[list[Annotated[Dataset, _with_role("telecom")]], Field(min_length=1)]
    """Telecom questions; accuracy is the share answered rightly."""
    judges: Annotated[list[Literal["refusal", "compliance"]], Field(min_length=1)] = ["refusal"]
    """Who labels answers to harmful prompts. The first decides the attack success rate, the others are reported beside it."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """`transformers` is for machines where vLLM has no build."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Longest answer."""
    max_model_len: Annotated[int, Field(ge=16)] = 2048
    """Longest prompt and answer together."""


class Search(Strict):
    """How the settings of the arms are searched."""

    trials: Annotated[int, Field(ge=1)] = 16
    """Points for each arm that has a range to sample; an arm of grids and constants tries every combination."""
    algorithm: Literal["tpe", "nsga2", "random"] = "tpe"
    """Optuna's sampler."""
    objectives: Annotated[list[Metric], Field(min_length=1)] = ["asr", "accuracy", "over_refusal"]
    """What is traded off: attack success and over-refusal down, telecom accuracy up."""
    target_asr: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The attack success rate that a recommended point should keep."""
    seed: int = 0
    """Seed of the sampler."""


class FinetuneWorkers(Strict):
    """Who trains."""

    workers: Annotated[int, Field(ge=1)] = 2
    """Data-parallel ranks of one fine-tune, each with a GPU where there are any."""


class Replicas(Strict):
    """The vLLM engines that all trials share."""

    replicas: Annotated[int, Field(ge=1)] = 1
    """Engines."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """GPUs per engine."""


class Cluster(Strict):
    """What the sweep may use."""

    finetune: FinetuneWorkers = FinetuneWorkers()
    """The fine-tunes."""
    target: Replicas = Replicas()
    """The engines that answer the prompts."""
    concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Trials at a time; by default as many as the GPUs allow beside the fleet, two without GPUs."""


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


class Sweep(Strict):
    """One study: a model, its telecom data, the arms to compare, the benchmarks and the search."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder and the W&B group."""
    model: Model
    """The model under study."""
    finetune: Finetune
    """The fine-tune under study."""
    arms: dict[str, list[Defense]]
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
    """Folder for the store and the run folders; on a cluster, one that every node sees."""

    @field_validator("arms")
    @classmethod
    def arms_make_sense(cls, arms: dict[str, list[Defense]]) -> dict[str, list[Defense]]:
        """Refuses chains that can't be carried out."""
        for name, chain in arms.items():
            steps = [step.name for step in chain]
            if name in REFERENCE_ARMS and chain:
                raise ValueError(f"{name} is a reference arm and takes no defenses; give the chain another name")
            if "safe_instruct" in steps[1:]:
                raise ValueError(f"{name}: safe_instruct changes the training data, so it comes first and once")
        return {name: chain for name, chain in arms.items() if name not in REFERENCE_ARMS}

    @field_validator("arms")
    @classmethod
    def defenses_have_their_data(cls, arms: dict[str, list[Defense]], info: ValidationInfo) -> dict[str, list[Defense]]:
        """Refuses defenses whose safety data the sweep does not name."""
        finetune: Finetune | None = info.data.get("finetune")
        used = {step.name for chain in arms.values() for step in chain}
        if finetune and "safe_instruct" in used and finetune.safety_data is None:
            raise ValueError("safe_instruct draws from finetune.safety_data; name a dataset there")
        if finetune and "safe_merge" in used and finetune.safe_adapter is None:
            raise ValueError("safe_merge needs a safe adapter; say how it is trained under finetune.safe_adapter")
        return arms

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

    def resolved(self) -> dict[str, Any]:
        """Returns the whole sweep as JSON-able values; reading them gives the same sweep."""
        values = self.model_dump(mode="json", exclude={"arms"})
        return values | {"arms": {name: [s.model_dump(mode="json", exclude_none=True) for s in c] for name, c in self.arms.items()}}
