"""What a request says, as plain text and as the tokens that a model would read. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from node_agent.engines.simulator_text import word_of


class NotAPrompt(ValueError):
    """The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it is answered."""

    parts: list[str]
    """What decides the answer: roles and texts, without the answer begun."""
    begun: str
    """The answer so far."""
    tokens: list[str]
    """All that the model reads."""


def conversation(
    messages: object, *, preface: Sequence[str] = (), begin: bool = True, resume: bool = False
) -> Conversation:
    """From messages. ``begin``: the model is told to answer; ``resume``: the last message is an answer begun."""
    if not isinstance(messages, list) or not messages:
        raise NotAPrompt("messages: Input should be a list of at least one message")
    parts: list[str] = []
    tokens = [word for text in preface for word in text.split()]
    begun = ""
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(role := message.get("role"), str):
            raise NotAPrompt(f"messages.{number}: Input should be an object with a role")
        text = flat(message.get("content"))
        if calls := message.get("tool_calls"):
            text += json.dumps(calls, sort_keys=True)
        tokens.append(f"<|{role}|>")
        tokens += text.split()
        if resume and number == len(messages) - 1 and role == "assistant":
            begun = text
        else:
            parts += (role, text)
    if begin and not resume:
        tokens.append("<|assistant|>")
    return Conversation(parts, begun, tokens)


def flat(content: object) -> str:
    """A message's content as text; what is no text stands as one word of its own."""
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "\n".join(_part(part) for part in content)
    raise NotAPrompt("content: Input should be a string or a list of parts")


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise NotAPrompt("content: Input should be a string or a list of parts")
    if isinstance(text := part.get("text"), str):
        return text
    digest = blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"<{part.get('type', 'part')}:{digest}>"


def prompts(value: object, word: Any = word_of) -> list[str]:
    """The prompts of a completion: a text, texts, token ids, or lists of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(isinstance(one, str) for one in value):
            return list(value)
        if all(isinstance(one, int) for one in value):
            return [" ".join(word(one) or f"<{one}>" for one in value)]
        if all(isinstance(one, list) for one in value):
            return [text for one in value for text in prompts(one)]
    raise NotAPrompt("Input should be a string, a list of strings, or a list of token ids")


def responses_messages(given: object, instructions: str | None) -> list[Mapping[str, Any]]:
    """The input of /v1/responses as messages."""
    messages: list[Mapping[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise NotAPrompt("input: Input should be a string or a list of items")
    for item in given:
        if not isinstance(item, Mapping):
            raise NotAPrompt("input: Input should be a string or a list of items")
        if isinstance(item.get("role"), str):
            messages.append(item)
        else:
            messages.append({"role": str(item.get("type", "item")), "content": json.dumps(item, sort_keys=True)})
    return messages
