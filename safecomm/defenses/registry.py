"""The defenses by name. To add one, add a file to `methods` and a line here; user code goes by its dotted name."""

from safecomm.defenses.defense import Defense, Realignment, TrainingDefense
from safecomm.defenses.methods.constrained_sft import ConstrainedSft
from safecomm.defenses.methods.drop import Drop
from safecomm.defenses.methods.hyperparameters import Hyperparameters
from safecomm.defenses.methods.look_ahead import LookAhead
from safecomm.defenses.methods.lox import Lox
from safecomm.defenses.methods.one_shot import OneShot
from safecomm.defenses.methods.resta_instruct import RestaInstruct
from safecomm.defenses.methods.safe_delta import SafeDelta
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
    "constrained_sft": ConstrainedSft,
    "look_ahead": LookAhead,
    "lox": Lox,
    "one_shot": OneShot,
    "safe_delta": SafeDelta,
}


def defense_of(reference: str) -> type[Defense]:
    """Returns the defense with a name in `DEFENSES`, or the user's class with a dotted name.

    Raises:
        UsageError: if the user's class can't be loaded or is not a defense.
    """
    if not is_dotted(reference):
        return DEFENSES[reference]
    found = load(reference)
    if not (isinstance(found, type) and issubclass(found, Realignment | TrainingDefense)):
        raise refuse(reference, "is not a defense; subclass safecomm.defenses.Realignment or TrainingDefense")
    name = getattr(found, "name", None)
    if not (isinstance(name, str) and name.isidentifier()):
        raise refuse(reference, 'has no name; add `name: ClassVar[str] = "my_defense"`')
    if name in DEFENSES:
        raise refuse(reference, f"its name, {name}, is taken by a built-in defense; choose another")
    if issubclass(found, Realignment) and found.apply is Realignment.apply:
        raise refuse(reference, f"has no method apply(self, {', '.join(found.needs)}); add it")
    return found
