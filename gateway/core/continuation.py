"""Goes on with a streamed answer on another worker after the first was lost: one text, one end, one bill.

The text that the client was shown becomes the beginning of the answer: the next worker is sent the conversation
with it, and what that one says is joined on as if nothing had happened, but for one comment in the stream. Events
that had come only in part were never shown, and are said again.

What is promised: no text is lost and none comes twice, as far as the engine goes on exactly where the text ends.
Chat templates that trim the last message make an engine repeat, or forget, white space at the joint. All the text
is what one worker alone would have said only where engines are deterministic. Sampled answers go on with another
draw, and penalties count what was said as a part of the prompt. Tokens that an engine held back (a stop word that
may have begun) are said, and counted, again.
"""

import re
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.core.metering import StreamMeter, end_of_object
from gateway.core.request import LLAMACPP, InferenceRequest
from gateway.core.transcript import Transcript, parsed

MARK: Final = b": continued on another worker\n\n"

_ID: Final = re.compile(rb'"id": ?"[^"\\]*"')
_CREATED: Final = re.compile(rb'"created": ?[0-9]+')
_USAGE: Final = re.compile(rb'"usage": ?\{')
_LIMITS: Final = ("max_completion_tokens", "max_tokens")


def continue_body(request: InferenceRequest, engine: str, engine_name: str, transcript: Transcript) -> bytes:
    """The body that makes a worker go on. Only for a transcript with no ``refusal`` and no ``ending``."""
    text = transcript.text()
    if not text:
        return request.body_for(engine, engine_name)
    fields: dict[str, object] = orjson.loads(request.body)
    given = transcript.given.completion_tokens or 0
    if request.max_tokens is None and transcript.most is not None:
        fields["max_tokens"] = transcript.most
    for name in _LIMITS:
        most = fields.get(name)
        if type(most) is int and most > 0:
            fields[name] = max(1, most - given)
    least = fields.get("min_tokens")
    if type(least) is int:
        fields["min_tokens"] = max(0, least - given)
    if request.endpoint.scope == "completions":
        prompt = fields["prompt"]
        fields["prompt"] = [f"{prompt[0]}{text}"] if isinstance(prompt, list) else f"{prompt}{text}"
        return request.written(fields, engine, engine_name)
    messages = fields["messages"]
    assert isinstance(messages, list), "the request was read"
    last = messages[-1]
    if engine == LLAMACPP:  # goes on with the last message whenever it is the assistant's
        open_ended = last["role"] == "assistant"
    else:
        open_ended = fields.get("continue_final_message") is True
        fields["continue_final_message"] = True
        fields["add_generation_prompt"] = False
    if open_ended:
        messages[-1] = {**last, "content": _longer(last.get("content"), text)}
    else:
        messages.append({"role": "assistant", "content": text})
    return request.written(fields, engine, engine_name)


@dataclass(slots=True)
class Splicer:
    """Makes the events of one further worker the rest of the answer. ``show`` is for its scanner.

    ``timings`` of llama.cpp stay what they are, that worker's own.
    """

    transcript: Transcript
    meter: StreamMeter
    """The further worker's own."""
    _marked: bool = field(init=False, default=False)
    _id: bytes = field(init=False)
    _created: bytes = field(init=False)

    def __post_init__(self) -> None:
        known, created = self.transcript.id, self.transcript.created
        self._id = b'"id":%b' % orjson.dumps(known) if known else b""
        self._created = b"" if created is None else b'"created":%d' % created

    def show(self, event: bytes) -> bytes:
        """What the client gets of this event; the transcript has seen it then."""
        event = self.meter.show(event)
        if event:
            event = self._joined(event)
            self.transcript.see(event)
        if self._marked:
            return event
        self._marked = True
        return MARK + event

    def _joined(self, event: bytes) -> bytes:
        if b'"choices":' not in event:
            return event
        if self.transcript.role and b'"role":' in event:
            event = _without_role(event)
        if self._id:
            event = _ID.sub(lambda _: self._id, event, count=1)
        if self._created:
            event = _CREATED.sub(self._created, event, count=1)
        if b'"usage":' in event and (found := _USAGE.search(event)):
            event = self._counted(event, found.end() - 1)
        return event

    def _counted(self, event: bytes, at: int) -> bytes:
        """The event with the counts of all workers; ``at``: where its usage object begins."""
        end = end_of_object(event, at + 1)
        told = self.transcript.total(self.meter.usage())
        try:
            fields = orjson.loads(event[at:end])
            fields["prompt_tokens"], fields["completion_tokens"] = told.prompt_tokens, told.completion_tokens
            fields["total_tokens"] = (told.prompt_tokens or 0) + (told.completion_tokens or 0)
            if fields.get("prompt_tokens_details"):
                fields["prompt_tokens_details"] = {"cached_tokens": told.cached_tokens}
            return event[:at] + orjson.dumps(fields) + event[end:]
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # it reads four times the depth that it writes
            return event


def _longer(content: object, text: str) -> object:
    """A message's content with that text at its end."""
    if not isinstance(content, list):
        return f"{content or ''}{text}"
    last = content[-1] if content else None
    if isinstance(last, dict) and isinstance(last.get("text"), str):
        return [*content[:-1], {**last, "text": last["text"] + text}]
    return [*content, {"type": "text", "text": text}]


def _without_role(event: bytes) -> bytes:
    """The event without its role; empty when there is nothing else to it."""
    chunk = parsed(event)
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(delta, dict):
        return event
    delta.pop("role", None)
    if not any(delta.values()) and choice.get("finish_reason") is None:
        return b""
    try:
        return b"data: %b\n\n" % orjson.dumps(chunk)
    except orjson.JSONEncodeError:  # half a character, a number without end: rather a role too many than no event
        return event
