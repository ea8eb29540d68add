"""Defenses that turn one adapter into a safer one, without training.

A defense gets the adapter, its alignment profile, its settings of the sweep file (constants) and, where there is one,
the safe adapter. It returns the new adapter and the modules that it acted on. In a chain, the caller makes a profile
for each step, of the adapter that the step gets.
"""

from collections.abc import Callable, Mapping
from typing import Any

from safecomm.defenses import safe_lora, safe_merge
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import Profile

Defense = Callable[[Adapter, Profile, Mapping[str, Any], Adapter | None], tuple[Adapter, list[str]]]

DEFENSES: dict[str, Defense] = {"safe_lora": safe_lora.apply, "safe_merge": safe_merge.apply}
