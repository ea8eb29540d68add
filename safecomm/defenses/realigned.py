"""The output of a defense: an adapter and the record of how it was made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safecomm.storage.names import LINEAGE
from safecomm.storage.output_files import new_folder
from safecomm.storage.store import write_json

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter


@dataclass(frozen=True, eq=False)
class Realigned:
    """The output of a defense."""

    adapter: "Adapter"
    """The safer adapter, which is the input of the next defense in a chain."""
    defense: str
    """Name of the defense."""
    settings: Mapping[str, Any]
    """Its settings."""
    modules: Sequence[str]
    """The modules that it changed, in layer order."""
    inputs: Mapping[str, str]
    """Its inputs: name -> the adapter's content hash, or the checkpoint folder."""

    def save(self, folder: str | Path) -> None:
        """Writes a PEFT folder with a `lineage.json`, atomically.

        Raises:
            ModelError: if the adapter is empty or has non-finite values.
            UsageError: if the folder exists and is not empty.
        """
        with new_folder(Path(folder)) as half:
            self.adapter.save(half)
            write_json(half / LINEAGE, self.lineage())

    def lineage(self) -> dict[str, Any]:
        """Returns the record of how the adapter was made."""
        return {
            "defense": self.defense,
            "settings": dict(self.settings),
            "modules": list(self.modules),
            "inputs": dict(self.inputs),
            "adapter": self.adapter.digest(),
        }
