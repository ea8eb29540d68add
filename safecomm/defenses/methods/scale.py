"""Scale: the baseline that needs only the adapter."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from safecomm.defenses.defense import Need, Realignment, by_name
from safecomm.defenses.space import Real, within

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter
    from safecomm.defenses.realigned import Realigned


class Scale(Realignment):
    """Scale the update; from 0 to 1 this interpolates with the aligned model (WiSE-FT, arXiv 2109.01903)."""

    name: ClassVar[str] = "scale"
    needs: ClassVar[tuple[Need, ...]] = ("adapter",)

    factor: Annotated[Real, within(0, 10)]
    """0 is the aligned model, 1 the fine-tuned one."""

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the scaled adapter."""
        return scale(*subject, self)


@by_name(Scale)
def scale(adapter: "Adapter", settings: Scale) -> "Realigned":
    """Scales the update: dW <- factor dW.

    From 0 to 1 this interpolates between the aligned and the fine-tuned weights.

    Args:
        adapter: the fine-tuned adapter.
        settings: the settings, as an object or as keyword arguments.

    Raises:
        DefenseError: if the factor is negative.
    """
    from safecomm.defenses.realigned import Realigned

    factor = cast(float, settings.factor)
    scaled = {name: update._replace(scaling=factor * update.scaling) for name, update in adapter.modules.items()}
    inputs = {"finetuned": adapter.digest()}
    return Realigned(replace(adapter, modules=scaled), settings.name, settings.constants(), list(scaled), inputs)
