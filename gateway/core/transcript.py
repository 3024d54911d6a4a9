"""What a client was shown of a streamed answer: enough to say where another worker would have to go on."""

import json
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.core.metering import Usage, is_done, payload
from gateway.core.prompts import CONTINUED
from gateway.core.request import LLAMACPP, SIMULATOR, VLLM, InferenceRequest

MAX_TEXT: Final = 1024 * 1024
"""Octets of text as escaped in JSON; a longer answer is not held."""

DEFAULT_OF_COMPLETIONS: Final = 16
"""Tokens of a completion whose client did not say how many it wants: OpenAI's rule, not llama.cpp's."""

_ENGINES: Final = frozenset({VLLM, SIMULATOR, LLAMACPP})  # known to take a begun answer in a chat
_ONGOING: Final = b'"finish_reason":null'
_BACKSLASH: Final = ord("\\")
_END: Final = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Transcript:
    """What one client was shown of one answer, by however many workers."""

    request: InferenceRequest
    engine: str
    """The first worker's."""
    why_not: str = field(init=False)
    """Why another worker cannot go on, whichever it is; empty: it can."""
    given: Usage = field(init=False, default=Usage())
    """What the workers that were lost have said together."""
    continued: int = field(init=False, default=0)
    """Workers that were lost."""
    id: str = field(init=False, default="")
    created: int | None = field(init=False, default=None)
    role: bool = field(init=False, default=False)
    finish: str = field(init=False, default="")
    """Why the answer has ended, once it has."""
    done: bool = field(init=False, default=False)
    """The end of the stream was shown."""
    most: int | None = field(init=False)
    """Tokens after which the first worker would have ended."""
    _counted: bool = field(init=False, default=False)
    """The chunk with the whole usage was shown."""
    _parts: list[bytes] = field(init=False, default_factory=list)
    _size: int = field(init=False, default=0)
    _head: dict[str, object] = field(init=False, default_factory=dict)
    """The first chunk, without its choices."""
    _before: bytes = field(init=False)
    _after: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.why_not = self.request.continuable
        chat = self.request.endpoint.scope == "chat"
        self.most = self.request.max_tokens
        if self.most is None and not chat and self.engine != LLAMACPP:
            self.most = DEFAULT_OF_COMPLETIONS
        self._before, self._after = (b'"delta":{"content":"', b"}") if chat else (b'"text":"', b",}")

    def see(self, event: bytes) -> None:
        """The client was shown this event, after all that was done to it."""
        if self._head:
            if self.why_not:
                if _ONGOING in event:
                    return
            elif (at := event.find(self._before)) >= 0 and _ONGOING in event:
                at += len(self._before)
                end = event.find(b'"', at)
                if end > 0 and event[end + 1] in self._after and event[end - 1] != _BACKSLASH:
                    return self._add(event[at:end])
        self._read(event)

    def lose(self, why: str) -> None:
        """The client was shown something that is not known here."""
        self.why_not = self.why_not or why
        self._parts.clear()

    def lost(self, usage: Usage) -> None:
        """The worker is gone, and these were its last counts. What it had not finished saying does not count."""
        self.given = self.total(usage)
        if not self._size and not self.finish and not self.why_not:  # the next one is asked the same again
            self.given = Usage(self.given.prompt_tokens, 0, self.given.cached_tokens)
        self.continued += 1

    def total(self, usage: Usage) -> Usage:
        """All that counts, when the present worker has these counts: each token once, the prompt as at first."""
        given = self.given
        if given == Usage():
            return usage
        more = usage.completion_tokens
        if given.completion_tokens is not None:
            more = given.completion_tokens + (more or 0)
        if given.prompt_tokens is None:  # nobody said, and the next prompt holds the text
            return Usage(usage.prompt_tokens, more, usage.cached_tokens)
        return Usage(given.prompt_tokens, more, given.cached_tokens)

    def refusal(self, engine: str) -> str:
        """Why, after ``lost``, a worker with that engine cannot go on; empty: it can."""
        if self.why_not or not self._size:
            return self.why_not
        if self.most is not None and self.given.completion_tokens is None:
            return "it is not known how many tokens are left"
        if self.request.endpoint.scope == "chat" and engine not in _ENGINES:
            return f"the engine {engine!r} is not known to go on with a begun answer"
        try:
            self.text()
        except ValueError:
            return "the text so far ends inside a character"
        return ""

    def text(self) -> str:
        """What was said so far. ValueError: it ends inside a character."""
        text: str = orjson.loads(b'"%b"' % b"".join(self._parts))
        return text

    def ending(self) -> bytes:
        """What the client lacks of an answer that is complete, after ``lost``; empty when the answer is not.

        Complete is what has a finish reason, and what has as many tokens as were asked for.
        """
        request = self.request
        if self.done or not self._head or request.choices != 1:
            return b""
        out = b""
        tokens = self.given.completion_tokens
        if not self.finish:
            if self.why_not or self.most is None or tokens is None or tokens < self.most:
                return b""
            out = self._chunk([self._last_choice()])
        if (
            request.include_usage
            and not self._counted
            and self.given.prompt_tokens is not None
            and tokens is not None
        ):
            usage = {
                "prompt_tokens": self.given.prompt_tokens,
                "completion_tokens": tokens,
                "total_tokens": self.given.prompt_tokens + tokens,
            }
            out += self._chunk([], usage=usage)
        return out + _END

    def _last_choice(self) -> dict[str, object]:
        said: dict[str, object] = {"delta": {}} if self.request.endpoint.scope == "chat" else {"text": ""}
        return {"index": 0, **said, "logprobs": None, "finish_reason": "length"}

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({**self._head, "choices": choices, **more})

    def _add(self, escaped: bytes) -> None:
        self._size += len(escaped)
        if self._size > MAX_TEXT:
            return self.lose(f"an answer of more than {MAX_TEXT} bytes")
        self._parts.append(escaped)

    def _read(self, event: bytes) -> None:
        """An event that is not plainly one more piece of text."""
        if self.request.endpoint.scope not in CONTINUED or b"data:" not in event:
            return
        if is_done(event):
            self.done = True
            return
        chunk = parsed(event)
        choices = chunk.get("choices")
        if "error" in chunk or not isinstance(choices, list):
            return self.lose("the engine sent what is no part of an answer")
        if not self._head:
            self._learn(chunk)
        if isinstance(chunk.get("usage"), dict) and not choices:
            self._counted = True
        for choice in choices:
            if isinstance(choice, dict):
                self._take(choice)

    def _learn(self, chunk: dict[str, object]) -> None:
        kept = ("id", "object", "created", "model", "system_fingerprint")
        head = {name: chunk[name] for name in kept if name in chunk and _is_plain(chunk[name])}
        self._head = {"object": None, **head}
        known, created = head.get("id"), head.get("created")
        self.id = known if isinstance(known, str) else ""
        self.created = created if type(created) is int else None

    def _take(self, choice: dict[str, object]) -> None:
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish = reason
        delta = choice.get("delta")
        said = delta if isinstance(delta, dict) else {"content": choice.get("text")}
        for name, value in said.items():
            if name == "role":
                self.role = True
            elif name == "content" and isinstance(value, str):
                if not self.why_not:
                    self._add(json.dumps(value).encode()[1:-1])  # orjson has no halves of characters
            elif value:
                self.lose(f"the answer has {name}")
        if choice.get("logprobs"):
            self.lose("the answer has logprobs")


def parsed(event: bytes) -> dict[str, object]:
    """The chunk in an event; empty when there is none. Halves of characters are kept (orjson refuses them)."""
    fields = payload(event)
    if fields is None:
        lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
        try:
            fields = json.loads(b"\n".join(lines))
        except (ValueError, RecursionError):
            return {}
    return fields if isinstance(fields, dict) else {}


def _is_plain(value: object) -> bool:
    """Whether it can be said again: a node may write numbers without end, and halves of characters."""
    if isinstance(value, str):
        return value.isprintable()
    return value is None or (type(value) is int and 0 <= value < 2**53)
