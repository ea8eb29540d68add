"""What a defense makes of an adapter, and the record of how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safecomm.storage.names import LINEAGE
from safecomm.storage.store import new_folder, write_json

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter


@dataclass(frozen=True, eq=False)
class Realigned:
    """An adapter that a defense made."""

    adapter: "Adapter"
    """The safer adapter: what the next defense of a chain gets."""
    defense: str
    """Name of the defense."""
    settings: Mapping[str, Any]
    """The settings that it was given."""
    modules: Sequence[str]
    """The modules that it acted on, in the order of the layers."""
    inputs: Mapping[str, str]
    """What it was made from: name -> the adapter's content hash, or the checkpoint's folder."""

    def save(self, folder: str | Path) -> None:
        """Writes a PEFT folder with a `lineage.json`, whole or not at all.

        Raises:
            ModelError: where the adapter is empty or not finite.
            UsageError: where the folder exists and is not empty.
        """
        with new_folder(Path(folder)) as half:
            self.adapter.save(half)
            write_json(half / LINEAGE, self.lineage())

    def lineage(self) -> dict[str, Any]:
        """Returns how the adapter was made."""
        return {
            "defense": self.defense,
            "settings": dict(self.settings),
            "modules": list(self.modules),
            "inputs": dict(self.inputs),
            "adapter": self.adapter.digest(),
        }
