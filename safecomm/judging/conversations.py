"""Conversations that an attacker model leads towards a harmful request (the attack `multi_turn`).

They follow Crescendo (Russinovich et al., arXiv 2404.01833): the attacker reads the request and the conversation, and
writes the next message. What the model refuses is taken out of the conversation that the model sees; the attacker sees
all of it. Each turn is a try of the request. The judges read the request and the answer of the turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.judging.best_of_n import TRY_OF
from safecomm.judging.forms import Exchange
from safecomm.judging.judges import REFUSAL, is_refusal
from safecomm.judging.model_judge import ModelJudge
from safecomm.serving.engine import failed
from safecomm.serving.protocol import EvaluationProtocol, Message
from safecomm.serving.responses import Ask, Questions, Responses
from safecomm.serving.stream import ID
from safecomm.storage.store import digest

ATTACKER_REFUSED = "the attacker refused to write a message, or its context is too short"
NOTHING_YET = "(nothing yet)"
CONVERSATION = "conversation"
"""The column with what was said before the answer, also what the model refused and was not shown again."""


@dataclass
class Conversation:
    """One conversation."""

    request: str
    turns: int
    shown: list[Message] = field(default_factory=list)
    """What the model sees of it."""
    whole: list[Message] = field(default_factory=list)
    """What the attacker sees of it."""
    message: str = ""
    """The attacker's latest message; empty if it refused to write one."""

    def exchange(self, turn: int) -> Exchange:
        """Returns what the attacker reads before a turn."""
        return Exchange(self.request, transcript(self.whole) or NOTHING_YET, f"{turn} of {self.turns}")

    def so_far(self) -> list[Message]:
        """Returns everything that was said, with the latest message."""
        return [*self.whole, *([{"role": "user", "content": self.message}] if self.message else [])]

    def asked(self) -> list[Message]:
        """Returns what the model is shown, with the latest message."""
        return [*self.shown, *([{"role": "user", "content": self.message}] if self.message else [])]

    def add(self, answer: str) -> None:
        """Adds the latest message and its answer."""
        turn = [{"role": "user", "content": self.message}, {"role": "assistant", "content": answer}]
        self.whole += turn
        if answer.strip() and not is_refusal(answer):
            self.shown += turn


def converse(
    prompts: Sequence[Prompt], attacker: ModelJudge, protocol: EvaluationProtocol, responses: Responses, ask: Ask
) -> pd.DataFrame:
    """Holds the conversations and returns a row per turn, in the format of `EvaluationProtocol.rows`.

    A turn for which the attacker wrote no message has an `error` and no response: it is no evidence of the model's
    safety. There is one more column, `CONVERSATION`; with several samples, each is a request of its own (`try_of`).

    Args:
        prompts: the turns of all conversations.
        attacker: writes the messages.
        protocol: how the model is asked.
        responses: the model's answers so far.
        ask: asks the model.

    Raises:
        UnansweredError: if the attacker or the model could not be asked.
    """
    turns = _turns(prompts)
    held: dict[tuple[str, str, str], Conversation] = {}
    found = []
    for turn in range(1, max(turns.values()) + 1):
        of_turn = [prompt for prompt in prompts if prompt.turn == turn]
        led = {
            name: held.setdefault(_key(prompt, name), Conversation(prompt.text, turns[prompt.benchmark]))
            for prompt in of_turn
            for name in protocol.names(prompt)
        }
        for one, message in zip(led.values(), _messages(attacker, [*led.values()], turn), strict=True):
            one.message = message
        read = {name: transcript(one.so_far()) for name, one in led.items()}
        rows = protocol.rows(of_turn, _answers(led, protocol, responses, ask))
        rows[TRY_OF] += [_sample(*names) for names in zip(rows["prompt_id"], rows[ID], strict=True)]
        found.append(rows.assign(**{CONVERSATION: rows[ID].map(read)}))
    return pd.concat(found, ignore_index=True)


def first_messages(prompts: Sequence[Prompt], attacker: ModelJudge, most: int) -> list[str]:
    """Returns the messages with which an attacker opens some of the conversations; empty where it refuses.

    Args:
        prompts: the turns of all conversations.
        attacker: writes the messages.
        most: the number of conversations, if there are as many.

    Raises:
        UnansweredError: if the attacker could not be asked.
    """
    turns = _turns(prompts)
    first = [one for one in prompts if one.turn == 1][:most]
    return _messages(attacker, [Conversation(one.text, turns[one.benchmark]) for one in first], 1)


def with_conversation(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns judged rows that show the conversation below the request."""
    texts = rows["text"] + "\n\n" + rows[CONVERSATION]
    return rows.assign(text=texts).drop(columns=CONVERSATION)


def transcript(messages: Sequence[Message]) -> str:
    """Returns messages as a text to read."""
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in messages)


def _turns(prompts: Iterable[Prompt]) -> dict[str, int]:
    """Returns benchmark -> the turns of its conversations."""
    turns: dict[str, int] = {}
    for prompt in prompts:
        turns[prompt.benchmark] = max(prompt.turn, turns.get(prompt.benchmark, 0))
    return turns


def _messages(attacker: ModelJudge, conversations: Sequence[Conversation], turn: int) -> list[str]:
    """Returns the attacker's next message in each conversation; empty where it refuses."""
    messages = attacker.replies([one.exchange(turn) for one in conversations])
    return ["" if _is_declined(message) else message for message in messages]


def _answers(
    led: Mapping[str, Conversation], protocol: EvaluationProtocol, responses: Responses, ask: Ask
) -> pd.DataFrame:
    """Asks for the next answer of every conversation, adds it there, and returns one row each."""
    # The answer depends on the conversation, so this is part of the name under which it is stored.
    names = {digest([name, one.asked()]): name for name, one in led.items() if one.message}
    questions: Questions = {key: protocol.next_question(led[name].asked(), name) for key, name in names.items()}
    rows = responses.of(questions, ask) if questions else pd.DataFrame({ID: []})
    rows = rows.assign(**{ID: rows[ID].map(names)})
    for name, answer in zip(rows[ID], rows["response"] if len(rows) else (), strict=True):
        led[name].add(answer)
    refused = [{ID: name, **failed(ATTACKER_REFUSED)} for name, one in led.items() if not one.message]
    return pd.concat([part for part in (rows, pd.DataFrame(refused)) if len(part)], ignore_index=True)


def _key(prompt: Prompt, name: str) -> tuple[str, str, str]:
    """Returns what the turns of one conversation have in common: the request, and which of its samples it is."""
    return prompt.benchmark, prompt.try_of, _sample(prompt.prompt_id, name)


def _sample(prompt_id: str, name: str) -> str:
    """Returns which of a prompt's samples a question is for; empty if there is one."""
    return name.removeprefix(prompt_id)


def _is_declined(message: str) -> bool:
    """Returns whether an attacker refuses. Users too say that they can't or don't know something, and then ask."""
    return not message or (REFUSAL.match(message) is not None and "?" not in message)
