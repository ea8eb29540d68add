"""What reports, gates and exports need of a run's `sweep.json`; other keys may come and go with versions."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from safecomm.statistics.metric_table import MetricName

ShownText = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""A name that pages, model cards and the terminal show: without newlines and other control characters."""
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class _Named(_Part):
    name: ShownText


class _Benchmark(_Named):
    attack: dict[str, Any] | None = None


class _Model(_Part):
    aligned: ShownText
    base: ShownText | None = None
    system_prompt: str | None = None


class _SafeAdapter(_Part):
    data: _Named | None = None


class _Finetune(_Part):
    data: list[_Named] = []
    adapter: str | None = None
    safety_data: _Named | None = None
    safe_adapter: _SafeAdapter | None = None

    @model_validator(mode="after")
    def trains_on_something(self) -> Self:
        """Refuses a fine-tune of nothing."""
        if not self.data and not self.adapter:
            raise ValueError("has neither data nor adapter")
        return self


class _Search(_Part):
    objectives: Annotated[list[MetricName], Field(min_length=1)]
    target_asr: Share
    seed: Annotated[int, Field(ge=0)] = 0
    split: Literal["search", "report"] = "search"
    release_split: Share = 0.0
    max_over_refusal_rise: Share = 0.0
    max_accuracy_drop: Share = 0.0


class _Evaluate(_Part):
    judges: Annotated[list[ShownText | _Named], Field(min_length=1)]
    grader: dict[str, Any] | None = None
    refusal_judge: dict[str, Any] | None = None
    attacker: dict[str, Any] | None = None
    labels: str | None = None
    engine: str = "auto"
    red_team: list[_Benchmark] = []
    over_refusal: list[_Named] = []
    task: list[_Named] = []


class _Tamper(_Part):
    max_accuracy_drop: Share | None = None


class _Drift(_Part):
    generations: Annotated[list[Any], Field(min_length=1)]


class SavedSweep(_Part):
    """The content of `sweep.json`."""

    name: ShownText
    model: _Model
    finetune: _Finetune
    arms: dict[ShownText, list[Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]]]
    search: _Search
    evaluate: _Evaluate
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    domain: ShownText | None = None
    paper: Literal["safecomm", "safemerge"] | None = None
    tamper: _Tamper | None = None
    drift: _Drift | None = None
