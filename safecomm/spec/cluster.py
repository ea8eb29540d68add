"""The `cluster` section: the hardware that a sweep may use."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from safecomm.defenses.space import Strict

NAME = "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
KEY = re.compile(rf"([a-z0-9.-]{{1,253}}/)?{NAME}")
SELECTOR = re.compile(rf"!?({NAME})?|!?in\({NAME}(, ?{NAME})*\)")


def selects_nodes(labels: dict[str, str]) -> dict[str, str]:
    """Rejects label selectors that Ray does not accept."""
    for key, value in labels.items():
        if not KEY.fullmatch(key) or not SELECTOR.fullmatch(value):
            raise ValueError(
                f"{key}: {value} is not a label selector; use a label's name and value as in `ray start --labels`, or "
                '"!VALUE", "in(A,B)", "!in(A,B)"'
            )
    return labels


Labels = Annotated[dict[str, str], AfterValidator(selects_nodes)]
"""Labels that a node must have (`ray start --labels`, or `labels` in a cluster file or a RayCluster)."""


class FinetuneWorkers(Strict):
    """The workers of a fine-tune."""

    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Data-parallel ranks per fine-tune, each on its own GPU if the cluster has GPUs."""
    labels: Labels = {}
    """Labels of the nodes to train on; by default any node."""
    spread: bool = False
    """Spread the ranks over as many nodes as possible, for more memory per rank, instead of over as few as possible."""


class Replicas(Strict):
    """The engines of one model, which all trials share."""

    replicas: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of engines. A phased sweep without `labels` here starts more if GPUs are left over."""
    tensor_parallel: Annotated[int, Field(ge=1, le=10_000)] = 1
    """GPUs over which each layer of an engine is split."""
    pipeline_parallel: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Groups of such GPUs over which an engine's layers are distributed, e.g. one per node."""
    labels: Labels = {}
    """Labels of the nodes to run the engines on; by default any node."""
    scale_to_zero: bool = False
    """Stop the engines while they are idle, and start them again on the next request."""

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel * self.pipeline_parallel


class Cluster(Strict):
    """The hardware that the sweep may use."""

    finetune: FinetuneWorkers = FinetuneWorkers()
    """The fine-tunes."""
    target: Replicas = Replicas()
    """The engines that answer the prompts."""
    judge: Replicas = Replicas()
    """The engines of each judge model."""
    gpus: Annotated[int, Field(ge=0, le=100_000)] = 0
    """GPUs to plan for, on a cluster that starts nodes on demand; ignored if the cluster already has more."""
    gpu_memory: Annotated[float, Field(gt=0)] | None = None
    """GiB per GPU. If set, a sweep that does not fit is rejected before anything starts."""
    phased: bool = False
    """Run the shared fine-tunes first, then start the engines for the search; each phase can use all GPUs."""
    concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Maximum concurrent trials. The default is two without GPUs; with GPUs, as many fine-tunes as fit, and in the
    search eight trials per replica. A search that stops early runs at least all seeds of a point at the same time."""
