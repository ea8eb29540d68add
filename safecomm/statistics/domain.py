"""The domain of a sweep's task data, as named in titles, model cards and the grader's prompt."""

from dataclasses import dataclass

DOMAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9 -]{0,39}$"
"""Valid domain names."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The subject of a sweep's task data."""

    name: str
    """The name in titles: `medical` gives "Medical accuracy"."""
    adjective: str
    """The adjective in the grader's prompt: `medical` gives "a medical question"."""

    @property
    def title(self) -> str:
        """The name at the start of a title."""
        return self.name[:1].upper() + self.name[1:]

    @property
    def tag(self) -> str:
        """The tag for model cards."""
        return self.name.lower().replace(" ", "-")

    @property
    def question(self) -> str:
        """A question of this domain, with its article."""
        return f"{'an' if self.adjective[0].lower() in 'aeiou' else 'a'} {self.adjective} question"


TELECOM = Domain("telecom", adjective="telecommunications")
"""The default domain."""


def domain_of(name: str) -> Domain:
    """Returns the domain for a sweep's `domain` setting; any name is allowed."""
    return TELECOM if name == TELECOM.name else Domain(name, adjective=name)
