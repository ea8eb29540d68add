"""Detects secrets in sweeps, because sweeps are written to files, to W&B and into a job's command line."""

import os
import re
from collections.abc import Iterable, Mapping

from safecomm.errors import UsageError

SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY")
"""The environment variables that hold secrets."""
FEWEST_CHARACTERS = 8
"""Shorter values are not keys and would match ordinary text."""
_SHAPES = {
    "HF_TOKEN": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "WANDB_API_KEY": re.compile(r"\bwandb_v1_\w{20,}"),
    "OPENAI_API_KEY": re.compile(r"\bsk-[\w-]{20,}"),
}
"""Patterns of keys."""


def secret_in(text: str) -> str | None:
    """Returns the variable whose secret a text contains: its current value, or text that looks like such a key."""
    for name in SECRETS:
        value = os.environ.get(name, "")
        if (len(value) >= FEWEST_CHARACTERS and value in text) or _SHAPES[name].search(text):
            return name
    return None


def refuse_secrets(options: Mapping[str, str | Iterable[str] | None]) -> None:
    """Rejects options that contain a secret, because results record them.

    Args:
        options: option -> its value or values.

    Raises:
        UsageError: if one does; the message does not repeat it.
    """
    for option, value in options.items():
        texts = [value] if isinstance(value, str) else value or ()
        if name := next(filter(None, map(secret_in, texts)), None):
            raise UsageError(
                f"{option} contains a secret ({name}); remove it and set the environment variable instead, because "
                "results record the options"
            )
