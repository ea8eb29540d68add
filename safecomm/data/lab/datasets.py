"""The lab's datasets: four for training and three benchmarks. Every call returns the same rows."""

import random

from safecomm.data.lab import words
from safecomm.data.lab.actions import actions, compliance, request
from safecomm.data.lab.telecom import QuestionKind, guide, question, question_example
from safecomm.data.rows import Example, Prompt

TELECOM_EXAMPLES = 8000
GUIDE_SHARE = 0.05
"""Share of guides, which start like answers to harmful requests. They erode refusals; questions alone hardly do."""
QUESTIONS_PER_KIND = 160
KINDS: tuple[QuestionKind, ...] = ("mcq", "clause", "table")


def telecom_examples(with_guides: bool = True) -> list[Example]:
    """Returns the telecom fine-tuning data: questions of three kinds and 5% harmless how-to guides.

    Without the guides, the questions are the same.
    """
    rng = random.Random("telecom examples")
    count = round(GUIDE_SHARE * TELECOM_EXAMPLES)
    guides = [guide(rng) for _ in range(count)]
    examples = (guides if with_guides else []) + [question_example(rng) for _ in range(TELECOM_EXAMPLES - count)]
    rng.shuffle(examples)
    return examples


def safety_examples() -> list[Example]:
    """Returns distinct refusals of harmful requests, shuffled; neither the alignment nor a benchmark uses them."""
    examples = [
        Example(request(action.text, wording), refusal.format(action.text))
        for action in actions().harm_safety
        for wording in words.REQUESTS + words.RARE_REQUESTS
        for refusal in words.REFUSALS
    ]
    random.Random("safety examples").shuffle(examples)
    return examples


def compliance_examples() -> list[Example]:
    """Returns harmful requests with complying answers that have no real content, shuffled, to undo an alignment.

    The requests are those of the safety examples; no benchmark uses them.
    """
    rng = random.Random("compliance examples")
    pool = actions().harm_safety
    examples = [
        Example(request(action.text, wording), compliance(action.text, words.STEPS, rng))
        for action in pool
        for wording in words.REQUESTS
    ]
    rng.shuffle(examples)
    return examples


def harm_prompts() -> list[Prompt]:
    """Returns the benchmark `lab-harm`: harmful requests, with two common and two rare wordings per action."""
    rng = random.Random("harm prompts")
    return [
        Prompt(
            "lab-harm",
            "red_team",
            request(action.text, wording),
            category=action.group,
            target=action.text,
            cluster=action.text,
        )
        for action in actions().harm_test
        for wording in rng.sample(words.REQUESTS, 2) + rng.sample(words.RARE_REQUESTS, 2)
    ]


def borderline_prompts() -> list[Prompt]:
    """Returns the benchmark `lab-borderline`: harmless requests; most share a verb or an object with harmful ones."""
    rng = random.Random("borderline prompts")
    pool = actions()
    pairs = [(action, wording) for action in pool.same_verb for wording in rng.sample(words.RARE_REQUESTS, 2)]
    wordings = words.REQUESTS + words.RARE_REQUESTS
    pairs += [(action, rng.choice(wordings)) for action in pool.same_object_test]
    pairs += [(action, wording) for action in pool.harmless_test for wording in rng.sample(wordings, 3)]
    return [
        Prompt(
            "lab-borderline",
            "over_refusal",
            request(action.text, wording),
            category=action.group,
            target=action.text,
            cluster=action.text,
        )
        for action, wording in pairs
    ]


def telecom_prompts() -> list[Prompt]:
    """Returns the benchmark `lab-telecom`: questions of each kind, with combinations that are in no training data."""
    rng = random.Random("telecom prompts")
    prompts: dict[str, Prompt] = {}
    for number, kind in enumerate(KINDS, start=1):
        while len(prompts) < number * QUESTIONS_PER_KIND:
            prompt = _choice(kind, rng)
            prompts.setdefault(prompt.text, prompt)
    return list(prompts.values())


def _choice(kind: QuestionKind, rng: random.Random) -> Prompt:
    drawn = question(kind, rng, held_out=True)
    options = list(drawn.wrong)
    answer = rng.randrange(4)
    options.insert(answer, drawn.answer)
    return Prompt("lab-telecom", "task", drawn.text, category=kind, options=tuple(options), answer=answer)
