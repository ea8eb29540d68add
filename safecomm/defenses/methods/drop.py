"""Drop: the control without which SafeLoRA can't be judged."""

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
        """Returns the adapter without those updates."""
        return drop(*subject, self)


@by_name(Drop)
def drop(profile: "Profile", settings: Drop) -> "Realigned":
    """Removes the update of the selected modules: dW <- 0, the aligned model's own weights.

    What SafeLoRA comes close to where C is small; a SafeLoRA that is no better than this owes nothing to alignment.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        settings: the settings, or each by its name.

    Raises:
        DefenseError: where the settings make no sense.
    """
    import torch

    from safecomm.defenses.realigned import Realigned

    selected = select(profile.modules, cast(Selection, settings.selection), strict=settings.strict)
    modules = profile.adapter.modules
    removed = {name: modules[name]._replace(B=torch.zeros_like(modules[name].B)) for name in selected}
    safer = replace(profile.adapter, modules={**modules, **removed})
    return Realigned(safer, settings.name, settings.constants(), selected, profile.inputs)
