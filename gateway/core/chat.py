"""The fields we read of a chat completion request, and the few we add on its way to an engine.

The body is parsed, looked at, and forgotten: what is kept while an answer lasts are the client's bytes. They go on
as they are, except that an engine is asked to report its token counts while it streams: those fields are set in
front of the others. Only a client that sent one of them itself has its body written anew.
"""

from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.core.errors import MalformedBody
from mesh.kit.errors import InvalidInput

MAX_MODEL_NAME = 256
MAX_VALUES = 100_000  # in one body: 4 MiB of empty lists would stop this process for 0.2 s, and weigh 100 MiB

# How an engine is asked for its running counts, on top of ``stream_options.include_usage``.
VLLM: Final = "vllm"  # stream_options.continuous_usage_stats: a usage object in each chunk
LLAMACPP: Final = "llamacpp"  # timings_per_token: a timings object in each chunk

_PREFIX = {
    VLLM: b'{"stream_options":{"include_usage":true,"continuous_usage_stats":true},',
    LLAMACPP: b'{"stream_options":{"include_usage":true},"timings_per_token":true,',
}
_PREFIX_OF_OTHERS = b'{"stream_options":{"include_usage":true},'


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that may be forwarded. Three flags say what the client itself asked to see."""

    model: str
    stream: bool
    body: bytes = field(repr=False)
    choices: int = 1
    """How many answers the client asked for at once (``n``)."""
    asks_itself: bool = False
    """Whether the client sent one of the fields that we set, so that they cannot just be put in front."""
    include_usage: bool = False
    continuous_usage: bool = False
    timings: bool = False

    def body_for(self, engine: str) -> bytes:
        """The body as that engine gets it."""
        if not self.stream:
            return self.body
        if not self.asks_itself:
            at = self.body.index(b"{") + 1
            return _PREFIX.get(engine, _PREFIX_OF_OTHERS) + self.body[at:]
        fields: dict[str, object] = orjson.loads(self.body)
        options = fields.get("stream_options")
        asked = {**options} if isinstance(options, dict) else {}
        asked["include_usage"] = True
        ours: dict[str, object] = {"stream_options": asked}
        if engine == VLLM:
            asked["continuous_usage_stats"] = True
        elif engine == LLAMACPP:
            ours["timings_per_token"] = True
        return orjson.dumps({**fields, **ours})


def parse(body: bytes) -> ChatRequest:
    """The request in that body. Raises InvalidInput naming the field, MalformedBody when there is none."""
    if _most_values(body) > MAX_VALUES:
        raise InvalidInput("body", f"holds more than {MAX_VALUES} values")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"not valid JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise MalformedBody("must be a JSON object")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidInput("model", "must be a string that is not empty")
    if len(model) > MAX_MODEL_NAME:
        raise InvalidInput("model", f"at most {MAX_MODEL_NAME} characters")
    _check_messages(fields.get("messages"))
    stream = _flag(fields, "stream", "stream")
    options = fields.get("stream_options")
    if options is None:
        options = {}
    elif not isinstance(options, dict):
        raise InvalidInput("stream_options", "must be an object")
    elif not stream:
        raise InvalidInput("stream_options", "only allowed when stream is true")
    choices = fields.get("n")
    return ChatRequest(
        model,
        stream,
        body,
        choices=choices if type(choices) is int and choices > 0 else 1,
        asks_itself="stream_options" in fields or "timings_per_token" in fields,
        include_usage=_flag(options, "include_usage", "stream_options.include_usage"),
        continuous_usage=_flag(options, "continuous_usage_stats", "stream_options.continuous_usage_stats"),
        timings=_flag(fields, "timings_per_token", "timings_per_token"),
    )


def _most_values(body: bytes) -> int:
    """No JSON text of these bytes has more values. Counts bytes: what is parsed costs before it can be counted."""
    most = _structure(body)
    if most <= MAX_VALUES:
        return most
    # Perhaps a long text with many commas in it. Outside of strings a backslash is no JSON.
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * MAX_VALUES:  # two quotes each, and each value may have a key
        return most
    return _structure(b"".join(text.split(b'"')[::2]))


def _structure(text: bytes) -> int:
    return 1 + text.count(b",") + text.count(b"[") + text.count(b"{")


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidInput("messages", "must be a list that is not empty")
    for at, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidInput(f"messages[{at}]", "must be an object")
        if not isinstance(message.get("role"), str):
            raise InvalidInput(f"messages[{at}].role", "must be a string")


def _flag(fields: dict[str, object], key: str, name: str) -> bool:
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(name, "must be true or false")
    return value is True
