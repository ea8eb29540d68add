"""The defenses by name. A new one is a file in `methods` and a line here; a user's own is named by its dotted name."""

from safecomm.defenses.defense import Defense, Realignment, TrainingDefense
from safecomm.defenses.methods.drop import Drop
from safecomm.defenses.methods.hyperparameters import Hyperparameters
from safecomm.defenses.methods.resta_instruct import RestaInstruct
from safecomm.defenses.methods.safe_instruct import SafeInstruct
from safecomm.defenses.methods.safe_lora import SafeLora
from safecomm.defenses.methods.safe_merge import SafeMerge
from safecomm.defenses.methods.scale import Scale
from safecomm.storage.own_code import is_dotted, load, refuse

DEFENSES: dict[str, type[Defense]] = {
    "finetune": Hyperparameters,
    "safe_instruct": SafeInstruct,
    "safe_lora": SafeLora,
    "safe_merge": SafeMerge,
    "drop": Drop,
    "scale": Scale,
    "resta_instruct": RestaInstruct,
}


def defense_of(reference: str) -> type[Defense]:
    """Returns the defense of a name of `DEFENSES`, or a user's own of a dotted name.

    Raises:
        UsageError: where a user's own can't be loaded or is no defense.
    """
    if not is_dotted(reference):
        return DEFENSES[reference]
    found = load(reference)
    if not (isinstance(found, type) and issubclass(found, Realignment | TrainingDefense)):
        raise refuse(reference, "is no defense; make it a subclass of safecomm.defenses.Realignment or TrainingDefense")
    name = getattr(found, "name", None)
    if not (isinstance(name, str) and name.isidentifier()):
        raise refuse(reference, 'has no name; add `name: ClassVar[str] = "my_defense"`')
    if name in DEFENSES:
        raise refuse(reference, f"its name, {name}, is that of a defense of safecomm; give it another")
    if issubclass(found, Realignment) and found.apply is Realignment.apply:
        raise refuse(reference, f"has no method apply(self, {', '.join(found.needs)})")
    return found
