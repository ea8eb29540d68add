"""How fast simulated engines and fine-tunes are."""

from typing import Annotated

from pydantic import Field

from safecomm.defenses.space import Strict

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Simulation(Strict):
    """The speed of engines and fine-tunes that compute nothing and only take time."""

    sequences: Annotated[int, Field(ge=1)] = 256
    """Answers that an engine generates at a time; it needs that many to reach its full speed."""
    tokens_per_second: Rate = 8000.0
    """Tokens that an engine generates per second at full speed."""
    trained_tokens_per_second: Rate = 6000.0
    """Tokens on which each rank of a fine-tune trains per second."""
    clock: Rate = 1.0
    """Simulated seconds per second. On a machine with few cores, choose one at which the CPUs are not the limit."""

    def answer_seconds(self, tokens: int) -> float:
        """Returns the seconds of real time in which an engine generates an answer."""
        return tokens * self.sequences / self.tokens_per_second / self.clock

    def training_seconds(self, tokens: float, workers: int) -> float:
        """Returns the seconds of real time that a fine-tune takes."""
        return tokens / (self.trained_tokens_per_second * workers) / self.clock
