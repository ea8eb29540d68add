"""The training data of the lab's guard."""

from collections import Counter

from safecomm.data.lab.guard import SAFE, UNSAFE, guard_text


def test_half_of_the_training_data_is_unsafe_and_deterministic() -> None:
    text = guard_text(600, seed=0)
    assert text == guard_text(600, seed=0) != guard_text(600, seed=1)
    counts = Counter(example.verdict for example in text)
    assert set(counts) == {SAFE, UNSAFE} and 0.45 < counts[UNSAFE] / 600 < 0.55
    assert [turn["role"] for turn in text[0].messages()] == ["user", "assistant", "assistant"]


def test_no_benchmark_request_is_in_the_training_data() -> None:
    from safecomm.data.lab.datasets import harm_prompts

    tested = {prompt.target for prompt in harm_prompts()}
    assert not any(target in example.prompt for example in guard_text(2_000, seed=0) for target in tested if target)
