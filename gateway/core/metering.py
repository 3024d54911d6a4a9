"""Tokens, from the engine's own numbers and from nothing else.

While an engine streams it tells its running counts with every chunk, because we asked (``core/chat.py``). The last
ones are kept, as bytes, and parsed once at the end, so that a client who leaves half-way is counted too. What the
client did not ask for is taken out again by searching bytes: the sequences searched for cannot occur inside a
JSON string, where each quote is escaped.
"""

from dataclasses import dataclass, field

import orjson

from gateway.core.chat import LLAMACPP, ChatRequest

MAX_COUNT = 2**31 - 1  # beyond it a number is a fault, and no number at all

_DONE = b"[DONE]"
_LONGEST_DONE = len(b"data: [DONE]\r\n\r\n")
_ERRORS = (b'data: {"error"', b'data:{"error"', b"event: error", b"error:")
_USAGE, _TIMINGS = b',"usage":{', b',"timings":{'
_NO_CHOICES = b'"choices":[]'


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request. ``None``: the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(slots=True)
class StreamMeter:
    """Watches the events of one streamed answer."""

    request: ChatRequest
    engine: str
    finished: bool = field(init=False, default=False)
    """The engine has said that this is all."""
    failed: bool = field(init=False, default=False)
    """The engine has sent an error event."""
    _usage: bytes = field(init=False, default=b"")
    _timings: bytes = field(init=False, default=b"")

    def show(self, event: bytes) -> bytes:
        """What the client gets of this event."""
        if self.engine == LLAMACPP and (at := event.rfind(_TIMINGS)) >= 0:
            end = _end_of_object(event, at + len(_TIMINGS))
            self._timings = event[at + len(_TIMINGS) - 1 : end]
            if _NO_CHOICES not in event:
                return event if self.request.timings else _without(event, at, end)
        if (at := event.rfind(_USAGE)) >= 0:
            end = _end_of_object(event, at + len(_USAGE))
            self._usage = event[at + len(_USAGE) - 1 : end]
            if _NO_CHOICES in event:  # the last chunk of all, with the whole usage
                return event if self.request.include_usage else b""
            return event if self.request.continuous_usage else _without(event, at, end)
        if len(event) <= _LONGEST_DONE and _DONE in event:
            self.finished = True
        elif event.startswith(_ERRORS):
            self.failed = True
        return event

    def usage(self) -> Usage:
        """The engine's last word."""
        if self._usage:
            return from_usage(_object(self._usage))
        return from_timings(_object(self._timings)) if self._timings else Usage()


def of_answer(body: bytes) -> Usage:
    """The counts in an answer that came as one JSON document."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Usage()
    return from_usage(fields.get("usage")) if isinstance(fields, dict) else Usage()


def capped(usage: Usage, *, context: int, choices: int) -> Usage:
    """The counts, none more than such a context can hold; the same object when none was. 0: length unknown."""
    if not context:
        return usage
    within = Usage(
        _at_most(usage.prompt_tokens, context),
        _at_most(usage.completion_tokens, min(context * choices, MAX_COUNT)),
        _at_most(usage.cached_tokens, context),
    )
    return usage if within == usage else within


def _at_most(count: int | None, most: int) -> int | None:
    return None if count is None else min(count, most)


def from_usage(fields: object) -> Usage:
    """OpenAI's usage object."""
    if not isinstance(fields, dict):
        return Usage()
    details = fields.get("prompt_tokens_details")
    return Usage(
        _count(fields.get("prompt_tokens")),
        _count(fields.get("completion_tokens")),
        _count(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def from_timings(fields: object) -> Usage:
    """llama.cpp's timings: ``prompt_n`` is what it computed of the prompt, ``cache_n`` what it already had."""
    if not isinstance(fields, dict):
        return Usage()
    computed, cached = _count(fields.get("prompt_n")), _count(fields.get("cache_n"))
    prompt = None if computed is None else computed + (cached or 0)
    return Usage(prompt, _count(fields.get("predicted_n")), cached)


def _end_of_object(event: bytes, at: int) -> int:
    """Where the object ends whose inside begins at ``at``. It holds numbers, and objects of numbers."""
    depth = 1
    while depth:
        close = event.find(b"}", at)
        if close < 0:
            return len(event)
        depth += event.count(b"{", at, close) - 1
        at = close + 1
    return at


def _without(event: bytes, at: int, end: int) -> bytes:
    """The event without the member between the two, which must be one of the outermost object.

    It is when only flat members follow it. Otherwise the event stays as it is: rather too much than broken.
    """
    if event.count(b"}", end) != 1 or event.find(b"]", end) >= 0 or event.find(b"{", end) >= 0:
        return event
    return event[:at] + event[end:]


def _object(text: bytes) -> object:
    try:
        fields: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return fields


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
