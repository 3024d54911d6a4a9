"""Tokens, from the engine's own numbers and from nothing else.

While an engine streams it tells its running counts with every chunk, because we asked (``core/request.py``). The
last ones are kept, as bytes, and parsed once at the end, so that a client who leaves half-way is counted too. What
the client did not ask for is taken out again by searching bytes: the sequences searched for cannot occur inside a
JSON string, where each quote is escaped. Responses and messages have events of their own for counts and the end.
"""

import re
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.core.endpoints import Counts
from gateway.core.request import LLAMACPP, InferenceRequest

MAX_COUNT = 2**31 - 1  # beyond it a number is a fault, and no number at all

_DONE = b"[DONE]"
_LONGEST_DONE = len(b"data: [DONE]\r\n\r\n")
_ERRORS = (b'data: {"error"', b'data:{"error"', b"event: error", b"error:", b'data: {"type":"error"')
_USAGE, _TIMINGS = b',"usage":{', b',"timings":{'
_NO_CHOICES = b'"choices":[]'
_DELTAS: Final = (
    b"event: response.output_text.delta",
    b"event: content_block_delta",
)  # nearly all events are these
_LAST_OF_RESPONSE: Final = re.compile(rb'"type": ?"response\.(?:completed|incomplete|(failed))"')
_OF_MESSAGE: Final = re.compile(rb'"type": ?"message_(?:start|delta|(stop))"')


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request. ``None``: the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(slots=True)
class StreamMeter:
    """Watches the events of one streamed answer."""

    request: InferenceRequest
    engine: str
    finished: bool = field(init=False, default=False)
    """The engine has said that this is all."""
    failed: bool = field(init=False, default=False)
    """The engine has sent an error event."""
    _counts: Counts = field(init=False)
    _asked: bool = field(init=False)
    """Whether counts are in the stream because we asked: what the client did not ask for is taken out."""
    _usage: bytes = field(init=False, default=b"")
    _timings: bytes = field(init=False, default=b"")
    _told: Usage = field(init=False, default=Usage())

    def __post_init__(self) -> None:
        self._counts = self.request.endpoint.counts
        self._asked = self.request.endpoint.include_usage

    def show(self, event: bytes) -> bytes:
        """What the client gets of this event."""
        if not self._asked:
            self._watch(event)
            return event
        if self.engine == LLAMACPP and (at := event.rfind(_TIMINGS)) >= 0:
            end = end_of_object(event, at + len(_TIMINGS))
            self._timings = event[at + len(_TIMINGS) - 1 : end]
            if _NO_CHOICES not in event:
                return event if self.request.timings else _without(event, at, end)
        if (at := event.rfind(_USAGE)) >= 0:
            end = end_of_object(event, at + len(_USAGE))
            self._usage = event[at + len(_USAGE) - 1 : end]
            if _NO_CHOICES in event:  # the last chunk of all, with the whole usage
                return event if self.request.include_usage else b""
            return event if self.request.continuous_usage else _without(event, at, end)
        self._look_for_end(event)
        return event

    def over(self) -> None:
        """The transport has ended in good order. Where no event says that this is all, that says it."""
        endpoint = self.request.endpoint
        if not endpoint.ends_with_done and self._counts in (Counts.OPENAI, Counts.NONE) and not self.failed:
            self.finished = True

    def usage(self) -> Usage:
        """The engine's last word."""
        if self._usage:
            return from_usage(_object(self._usage))
        return from_timings(_object(self._timings)) if self._timings else self._told

    def _watch(self, event: bytes) -> None:
        """Events that go on as they are."""
        if event.startswith(_DELTAS):
            return
        if self._counts is Counts.RESPONSES:
            found = _LAST_OF_RESPONSE.search(event)
            if found is not None:
                self.finished, self.failed = found[1] is None, found[1] is not None
                self._told = from_response(_member(payload(event), "response"))
                return
        elif self._counts is Counts.MESSAGES:
            found = _OF_MESSAGE.search(event)
            if found is not None:
                self.finished = found[1] is not None
                self._told = _newer(self._told, _of_message(payload(event)))
                return
        elif self._counts is Counts.OPENAI and (at := event.rfind(_USAGE)) >= 0:
            end = end_of_object(event, at + len(_USAGE))
            self._usage = event[at + len(_USAGE) - 1 : end]
            return
        self._look_for_end(event)

    def _look_for_end(self, event: bytes) -> None:
        if is_done(event):
            self.finished = True
        elif event.startswith(_ERRORS):
            self.failed = True


def is_done(event: bytes) -> bool:
    """Whether it is the event that ends a stream of chunks."""
    return len(event) <= _LONGEST_DONE and _DONE in event


def payload(event: bytes) -> object:
    """The JSON an event carries; None when it carries none that can be read."""
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return _object(b"\n".join(lines))


def of_answer(body: bytes, counts: Counts = Counts.OPENAI) -> Usage:
    """The counts in an answer that came as one JSON document."""
    if counts is Counts.NONE:
        return Usage()
    fields = _object(body)
    if counts is Counts.RESPONSES:
        return from_response(fields)
    usage = _member(fields, "usage")
    return from_message(usage) if counts is Counts.MESSAGES else from_usage(usage)


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
    """OpenAI's usage object. Where nothing is generated, all tokens are the prompt's."""
    if not isinstance(fields, dict):
        return Usage()
    prompt, completion = _count(fields.get("prompt_tokens")), _count(fields.get("completion_tokens"))
    if prompt is None and completion is None:
        prompt = _count(fields.get("total_tokens"))
    return Usage(prompt, completion, _count(_member(fields.get("prompt_tokens_details"), "cached_tokens")))


def from_response(fields: object) -> Usage:
    """The usage in a response object."""
    usage = _member(fields, "usage")
    return Usage(
        _count(_member(usage, "input_tokens")),
        _count(_member(usage, "output_tokens")),
        _count(_member(_member(usage, "input_tokens_details"), "cached_tokens")),
    )


def from_message(fields: object) -> Usage:
    """Anthropic's usage object: ``input_tokens`` leaves out what was read from, or written to, a cache."""
    computed = _count(_member(fields, "input_tokens"))
    cached = _count(_member(fields, "cache_read_input_tokens"))
    written = _count(_member(fields, "cache_creation_input_tokens"))
    prompt = None if computed is None else computed + (cached or 0) + (written or 0)
    return Usage(prompt, _count(_member(fields, "output_tokens")), cached)


def from_timings(fields: object) -> Usage:
    """llama.cpp's timings: ``prompt_n`` is what it computed of the prompt, ``cache_n`` what it already had."""
    if not isinstance(fields, dict):
        return Usage()
    computed, cached = _count(fields.get("prompt_n")), _count(fields.get("cache_n"))
    prompt = None if computed is None else computed + (cached or 0)
    return Usage(prompt, _count(fields.get("predicted_n")), cached)


def end_of_object(event: bytes, at: int) -> int:
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


def _of_message(fields: object) -> Usage:
    """The counts in an event of a message's stream: at its start inside the message, later beside it."""
    inside = _member(_member(fields, "message"), "usage")
    return from_message(_member(fields, "usage") if inside is None else inside)


def _newer(old: Usage, new: Usage) -> Usage:
    """What the newer one tells; for what it does not, the old one."""
    if new.prompt_tokens is None:
        completion = old.completion_tokens if new.completion_tokens is None else new.completion_tokens
        return Usage(old.prompt_tokens, completion, old.cached_tokens)
    return new


def _member(fields: object, key: str) -> object:
    return fields.get(key) if isinstance(fields, dict) else None


def _object(text: bytes) -> object:
    try:
        fields: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return fields


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_COUNT else None
