"""From a question to the tokens of its answer: continuation, length, stop strings, JSON by schema. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from node_agent.engines.simulator_text import Voice, continued, count, cut, resumed, split

DEEPEST: Final = 8  # levels of a schema


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of an answer beside its words."""

    budget: int
    """Tokens at most."""
    length: int = 0
    """Tokens of an answer that ends by itself, counted from its very beginning; 0: as the voice has it."""
    to_the_budget: bool = False
    """It does not end by itself."""
    least: int = 0
    """Tokens at least."""
    stops: Sequence[str] = ()
    with_stop: bool = False
    """A stop string is part of the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens of one choice, and why it ends: ``stop`` or ``length``; ``stopped_by`` a stop string."""

    tokens: list[str]
    reason: str
    stopped_by: str | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.tokens)


def spoken(voice: Voice, begun: str, wish: Wish) -> Answer:
    """An answer in words, from where ``begun`` ends."""
    number = count(begun)
    at = cut(begun, voice.tokens(number - 1, number)[0] if number else "")
    last = number + wish.budget - bool(at.rest)  # the rest of a cut token is a token, too
    end = max(wish.length or voice.length(), number + wish.least)
    by_itself = not wish.to_the_budget and end <= last
    tokens = resumed(at, voice.tokens(number, max(number, end if by_itself else last)))
    return _stopped(Answer(tokens, "stop" if by_itself else "length"), wish)


def recited(text: str, begun: str, wish: Wish) -> Answer:
    """An answer whose text is fixed (JSON), from where ``begun`` ends."""
    tokens = continued(split(text), begun)
    if len(tokens) > wish.budget:
        return _stopped(Answer(tokens[: wish.budget], "length"), wish)
    return _stopped(Answer(tokens, "stop"), wish)


def _stopped(answer: Answer, wish: Wish) -> Answer:
    """The answer up to the first stop string in it."""
    if not wish.stops:
        return answer
    text = answer.text
    # What ends first ends the answer: tokens come one by one.
    hits = [(text.find(stop) + len(stop), stop) for stop in wish.stops if stop and stop in text]
    if not hits:
        return answer
    end, stop = min(hits)
    keep = end if wish.with_stop else end - len(stop)
    tokens: list[str] = []
    seen = 0
    for token in answer.tokens:
        tokens.append(token[: max(0, keep - seen)])
        seen += len(token)
        if seen >= end:
            break
    return Answer(tokens, "stop", stop)


def instance(schema: object, voice: Voice, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits a JSON schema, as far as types, ``enum``, ``const``, ``required`` and ``$ref`` say."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return "".join(voice.tokens(0, 3))
    root = schema if root is None else root
    if isinstance(reference := schema.get("$ref"), str):
        found: Any = root
        for key in reference.removeprefix("#/").split("/"):
            found = found.get(key) if isinstance(found, Mapping) else None
        return instance(found, voice, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[voice.length() % len(choices)]
    for word in ("anyOf", "oneOf", "allOf"):
        if isinstance(several := schema.get(word), list) and several:
            return instance(several[0], voice, root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, Mapping) else {}
            return {str(name): instance(inner, voice, root, depth + 1) for name, inner in properties.items()}
        case "array":
            least = schema.get("minItems", 1)
            item = instance(schema.get("items"), voice, root, depth + 1)
            return [item] * (min(least, 64) if isinstance(least, int) else 1)
        case "integer" | "number":
            lowest = schema.get("minimum", voice.length())
            return lowest if isinstance(lowest, int | float) else voice.length()
        case "boolean":
            return voice.length() % 2 == 0
        case "null":
            return None
    return "".join(voice.tokens(0, 3))


def as_json(schema: object, voice: Voice) -> str:
    """JSON text for a schema; without one, an object with a few words in it."""
    value = instance(schema, voice) if schema else {"answer": "".join(voice.tokens(0, 8))}
    return json.dumps(value, ensure_ascii=False)
