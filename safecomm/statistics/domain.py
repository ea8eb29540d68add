"""What the fine-tune teaches: the word that titles, model cards and the grader use for it."""

from dataclasses import dataclass

DOMAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9 -]{0,39}$"
"""What a domain may be called."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The subject of a sweep's task data."""

    name: str
    """As titles have it: `medical` gives "Medical accuracy"."""
    adjective: str
    """As the grader is told: `medical` gives "a medical question"."""

    @property
    def title(self) -> str:
        """The name at the head of a title."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def tag(self) -> str:
        """The tag of a model card."""
        return self.name.lower().replace(" ", "-")

    @property
    def question(self) -> str:
        """A question of this domain, with its article."""
        return f"{'an' if self.adjective[0].lower() in 'aeiou' else 'a'} {self.adjective} question"


TELECOM = Domain("telecom", adjective="telecommunications")
"""The default."""


def domain_of(name: str) -> Domain:
    """Returns the domain of a sweep's `domain`; any word names one."""
    return TELECOM if name == TELECOM.name else Domain(name, adjective=name)
