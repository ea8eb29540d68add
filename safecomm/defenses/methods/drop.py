"""Drop: the control for SafeLoRA."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from safecomm.defenses.defense import Need, Selecting, by_name
from safecomm.statistics.selection import Selection, select

if TYPE_CHECKING:
    from safecomm.defenses.alignment import Profile
    from safecomm.defenses.realigned import Realigned


class Drop(Selecting):
    """Remove the update of the selected modules: the control for SafeLoRA."""

    name: ClassVar[str] = "drop"
    needs: ClassVar[tuple[Need, ...]] = ("profile",)

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the adapter without the selected updates."""
        return drop(*subject, self)


@by_name(Drop)
def drop(profile: "Profile", settings: Drop) -> "Realigned":
    """Removes the update of the selected modules: dW <- 0, which leaves the aligned model's weights.

    If C is small, SafeLoRA nearly does the same. If SafeLoRA is no better than this, its effect does not come from the
    projection.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        settings: the settings, as an object or as keyword arguments.

    Raises:
        DefenseError: if the settings are invalid.
    """
    import torch

    from safecomm.defenses.realigned import Realigned

    selected = select(profile.modules, cast(Selection, settings.selection), strict=settings.strict)
    modules = profile.adapter.modules
    removed = {name: modules[name]._replace(B=torch.zeros_like(modules[name].B)) for name in selected}
    safer = replace(profile.adapter, modules={**modules, **removed})
    return Realigned(safer, settings.name, settings.constants(), selected, profile.inputs)
