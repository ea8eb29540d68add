"""A suite's prompts as questions for a model, and its answers as rows."""

from collections.abc import Sequence

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.evaluate.engine import Question
from safecomm.evaluate.stream import ID


def questions_of(prompts: Sequence[Prompt], system_prompt: str | None = None) -> dict[str, Question]:
    """Returns prompt id -> question."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {
        prompt.prompt_id: Question(
            messages=[*system, {"role": "user", "content": prompt.text}], options=list(prompt.options)
        )
        for prompt in prompts
    }


def with_answers(prompts: Sequence[Prompt], answers: pd.DataFrame) -> pd.DataFrame:
    """Returns a row a prompt, in the order of the answers: the prompt's own fields and its answer's."""
    asked = pd.DataFrame([prompt.as_row() for prompt in prompts]).drop_duplicates("prompt_id")
    return answers.rename(columns={ID: "prompt_id"}).merge(asked, on="prompt_id", how="left", validate="one_to_one")
