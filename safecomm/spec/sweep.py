"""A whole sweep: all sections with their meaning and limits."""

import math
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safecomm.defenses.registry import defense_of
from safecomm.defenses.space import Exact, Grid, PathText, Strict, values_of
from safecomm.errors import suggestion
from safecomm.spec.arm_search import check_search
from safecomm.spec.arms import REFERENCE_ARMS, Step, by_own_names, dimensions
from safecomm.spec.chain import check_chain, check_inputs, check_module_types, equal_ranks_of, starts_of
from safecomm.spec.cluster import Cluster
from safecomm.spec.datasets import DatasetRef
from safecomm.spec.drift import Drift
from safecomm.spec.evaluate import Evaluate
from safecomm.spec.finetune import Finetune
from safecomm.spec.model import Model
from safecomm.spec.published import find_published
from safecomm.spec.search import Search
from safecomm.spec.simulation import Simulation
from safecomm.spec.tamper import Tamper
from safecomm.spec.tracking import Tracking
from safecomm.statistics.domain import DOMAIN_NAME, TELECOM, domain_of
from safecomm.storage.own_code import as_value_error, is_dotted, source_digest

MAX_TRIALS = 20_000
"""The most trials of an arm: its points times the seeds."""
MOST_SEEDS_AT_A_TIME = 16
"""The most seeds with which points stop early: their trials run at the same time, each in a process."""


class Sweep(Strict):
    """One study: a model, its task data, the arms to compare, the benchmarks and the search."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """The name of the run folder and the W&B group."""
    domain: Annotated[str, Field(pattern=DOMAIN_NAME)] = TELECOM.name
    """The subject of the fine-tune; any word is allowed.

    For example, `medical` puts "Medical accuracy" into tables and figures, the tag `medical` into model cards, and "a
    medical question" into the grader's rubric.
    """
    model: Model
    """The model under study."""
    finetune: Finetune
    """The fine-tune under study."""
    defenses: list[str] = []
    """Your own defenses, `my_package.my_module:MyDefense`; arms refer to them by the `name` of the class."""
    arms: dict[str, list[Step]]
    """Name -> chain of defenses. `original` and `undefended` are always measured."""
    evaluate: Evaluate
    """The benchmarks."""
    search: Search = Search()
    """The search."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of seeds; every point is trained and measured with seeds 0 to seeds - 1."""
    cluster: Cluster = Cluster()
    """The hardware."""
    tracking: Tracking = Tracking()
    """The tracking."""
    storage: PathText = "runs"
    """The folder for the store and the run folders. On a cluster it must be shared by all nodes, or be
    `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`."""
    tamper: Annotated[Tamper | None, Field(exclude_if=lambda tamper: tamper is None)] = None
    """Further training of the released adapters, to see how soon attack success returns."""
    drift: Annotated[Drift | None, Field(exclude_if=lambda drift: drift is None)] = None
    """Further generations of the fine-tune, to see which policy keeps the model safe."""
    simulation: Annotated[Simulation | None, Field(exclude_if=lambda speed: speed is None)] = None
    """How fast the engines and fine-tunes of a rehearsal are."""
    paper: str | None = None
    """The study that this sweep repeats, `safecomm` or `safemerge`; the report compares with its published results."""

    @field_validator("defenses")
    @classmethod
    def own_defenses_can_be_loaded(cls, defenses: list[str]) -> list[str]:
        """Rejects user defenses that can't be imported or that share a name."""
        names = []
        for reference in defenses:
            if not is_dotted(reference):
                raise ValueError(
                    f"{reference}: write your own defense as MODULE:CLASS; built-in defenses need no entry here"
                )
            with as_value_error():
                names.append(defense_of(reference).name)
        if len(set(names)) < len(names):
            raise ValueError(f"two defenses have the same name: {', '.join(names)}; rename one")
        return defenses

    @field_validator("name")
    @classmethod
    def name_is_free(cls, name: str) -> str:
        """Rejects the name of the store, which lies beside the run folders."""
        if name == "store":
            raise ValueError("is the name of the folder that the sweeps of a storage share; choose another name")
        return name

    @field_validator("arms", mode="before")
    @classmethod
    def own_defenses_go_by_their_names(cls, arms: Any, info: ValidationInfo) -> Any:
        """Replaces the names of the user's defenses by their dotted names."""
        if "defenses" not in info.data:
            return {}  # the mistake in `defenses` is already reported, and arms that use them can't be read
        if not isinstance(arms, dict):
            return arms
        own = {defense_of(reference).name: reference for reference in info.data["defenses"]}
        return {name: by_own_names(chain, own) for name, chain in arms.items()}

    @field_validator("arms")
    @classmethod
    def arms_make_sense(cls, arms: dict[str, list[Step]]) -> dict[str, list[Step]]:
        """Rejects invalid chains."""
        for name, chain in arms.items():
            check_chain(name, chain)
        return {name: chain for name, chain in arms.items() if name not in REFERENCE_ARMS}

    @field_validator("arms")
    @classmethod
    def defenses_have_their_data(cls, arms: dict[str, list[Step]], info: ValidationInfo) -> dict[str, list[Step]]:
        """Rejects defenses whose inputs the `finetune` section does not define."""
        if finetune := info.data.get("finetune"):
            check_inputs({step.name: step for chain in arms.values() for step in chain}.values(), finetune)
        return arms

    @field_validator("arms")
    @classmethod
    def module_types_are_adapted(cls, arms: dict[str, list[Step]], info: ValidationInfo) -> dict[str, list[Step]]:
        """Rejects selection criteria for module types that the adapter does not have."""
        if finetune := info.data.get("finetune"):
            for name, chain in arms.items():
                check_module_types(name, chain, finetune)
        return arms

    @field_validator("search")
    @classmethod
    def searches_fit_their_arms(cls, search: Search, info: ValidationInfo) -> Search:
        """Rejects search settings for unknown arms, and samplers or points that don't fit their arm."""
        arms: dict[str, list[Step]] = info.data.get("arms", {})
        if unknown := sorted(set(search.arms) - set(arms)):
            hint = suggestion(unknown[0], arms) or f"; use one of {', '.join(arms)}"
            raise ValueError(f"arms.{unknown[0]}: there is no such arm{hint}")
        for name, chain in arms.items():
            check_search(name, chain, search)
        return search

    @field_validator("paper")
    @classmethod
    def paper_has_published_it(cls, paper: str | None, info: ValidationInfo) -> str | None:
        """Rejects a study without results for the sweep's model and data."""
        model, finetune = info.data.get("model"), info.data.get("finetune")
        if paper and model and finetune:
            find_published(paper, model.aligned, [ref.name for ref in finetune.data])
        return paper

    @field_validator("evaluate")
    @classmethod
    def grader_is_told_the_domain(cls, evaluate: Evaluate, info: ValidationInfo) -> Evaluate:
        """Writes the domain's rubric into the sweep, so that the resolved sweep and the store keys include it."""
        if evaluate.grader is None or "domain" not in info.data:
            return evaluate
        return evaluate.model_copy(update={"grader": evaluate.grader.told_of(domain_of(info.data["domain"]))})

    @model_validator(mode="after")
    def arms_have_a_possible_size(self) -> Self:
        """Rejects more fine-tunes and evaluations than anyone waits for, before they are counted one by one."""
        for name, chain in self.arms.items():
            spaces = dimensions(chain).values()
            points = math.prod(len(values_of(space)) for space in spaces if isinstance(space, Grid))
            if any(not isinstance(space, Grid | Exact) for space in spaces):
                points = self.search.of(name).trials or 1
            if points * self.seeds > MAX_TRIALS:
                raise ValueError(
                    f"seeds: {name} has {points * self.seeds:,} trials, more than {MAX_TRIALS:,}; lower them"
                )
        return self

    @model_validator(mode="after")
    def drift_is_possible(self) -> Self:
        """Rejects a drift study without arms or training, of endless size, or whose engines would have to stop."""
        if self.drift is None:
            return self
        if not self.arms:
            raise ValueError("drift: there is no arm whose defense could be applied again; add one to arms")
        if self.finetune.adapter:
            raise ValueError("drift: finetune.adapter is already trained; set finetune.data, or remove drift")
        if self.cluster.phased:
            raise ValueError(
                "drift: its generations are trained and measured in turn, but with cluster.phased no engine runs while "
                "an adapter is trained; set phased: false"
            )
        for name, chain in self.arms.items():
            if (starts := starts_of(chain)) and self.drift.starts != ["pool"]:
                raise ValueError(
                    f"drift.starts: {starts[0]} of {name} changes the model that training starts from, so every "
                    "generation must start there; set starts: [pool]"
                )
            if (equal := equal_ranks_of(chain)) and "merge" in self.drift.starts:
                raise ValueError(
                    f"drift.starts: merge adds up the generations' ranks, but {equal[0]} of {name} merges factors of "
                    "equal ranks; remove merge, or set combine: cat or svd"
                )
        courses = len(self.drift.policies) * len(self.drift.starts) * len(self.drift.permutations())
        if (trials := len(self.arms) * courses * len(self.drift.generations) * self.seeds) > MAX_TRIALS:
            raise ValueError(f"drift: it has {trials:,} trials, more than {MAX_TRIALS:,}; lower orders or policies")
        return self

    @model_validator(mode="after")
    def batch_is_divisible(self) -> Self:
        """Rejects batches that the workers can't share evenly."""
        share = self.finetune.micro_batch_size or 1
        if self.finetune.batch_size % (self.cluster.finetune.workers * share):
            raise ValueError(
                f"finetune.batch_size {self.finetune.batch_size} is not a multiple of cluster.finetune.workers x "
                f"finetune.micro_batch_size = {self.cluster.finetune.workers * share}; change one of the three"
            )
        return self

    @model_validator(mode="after")
    def simulation_has_its_engine(self) -> Self:
        """Rejects the settings of a simulation for a sweep that does not simulate."""
        if self.simulation is not None and not self.is_simulated:
            raise ValueError("simulation is only for evaluate.engine: simulated; remove it, or set that engine")
        return self

    @property
    def is_simulated(self) -> bool:
        """Whether engines and fine-tunes only take time; such a run's rates are made up."""
        return self.evaluate.engine == "simulated"

    @property
    def stops_early(self) -> bool:
        """Whether points of the search may stop early."""
        return self.search.racing is not None and self.seeds <= MOST_SEEDS_AT_A_TIME

    @property
    def speed(self) -> Simulation | None:
        """The speed of simulated engines and fine-tunes; None if they are real."""
        return (self.simulation or Simulation()) if self.is_simulated else None

    @property
    def training_sets(self) -> dict[str, DatasetRef]:
        """Everything that adapters are trained on, by its key in the sweep."""
        sections = [section.datasets for section in (self.finetune, self.tamper, self.drift) if section]
        return {key: ref for datasets in sections for key, ref in datasets.items()}

    @property
    def own_code(self) -> dict[str, str]:
        """The user code that results depend on: dotted name -> digest of its file."""
        own = {step.reference for chain in self.arms.values() for step in chain if is_dotted(step.reference)}
        own |= {ref.own for ref in (self.training_sets | self.evaluate.datasets).values() if ref.own}
        own |= {judge.own for judge in self.evaluate.judges if judge.own}
        return {name: source_digest(name) for name in sorted(own)}

    def resolved(self) -> dict[str, Any]:
        """Returns the whole sweep as JSON values; reading them again gives the same sweep."""
        values = self.model_dump(mode="json", exclude={"arms"})
        return values | {
            "arms": {name: [s.model_dump(mode="json", exclude_none=True) for s in c] for name, c in self.arms.items()}
        }
