"""The fields we read of a request, and the few we change on its way to an engine.

The body is parsed once, looked at, and forgotten: what is kept while an answer lasts are the client's bytes. They
go on as they are, but for the model's name where its engine knows it by another, and for the fields that ask an
engine to report its token counts while it streams. Only a client that sent one of those itself has its body
written anew.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from gateway.core import multipart, prompts
from gateway.core.affinity import prefix_of
from gateway.core.endpoints import Body, Endpoint
from gateway.core.errors import MalformedBody
from mesh.kit.errors import InvalidInput

MAX_MODEL_NAME: Final = 256
MAX_CHOICES: Final = 1024  # OpenAI allows 128; and what is set aside for them must stay a number of 64 bits
MAX_TOKENS: Final = 2**31 - 1  # of one answer: whoever asks for more gets no more
MAX_VALUES: Final = (
    100_000  # in one body: 4 MiB of empty lists would stop this process for 0.2 s, and weigh 100 MiB
)

# How an engine is asked for its running counts, on top of ``stream_options.include_usage``.
VLLM: Final = "vllm"  # stream_options.continuous_usage_stats: a usage object in each chunk
SIMULATOR: Final = "simulator"  # speaks vLLM's dialect
LLAMACPP: Final = "llamacpp"  # timings_per_token: a timings object in each chunk

_COUNTING: Final = b'{"stream_options":{"include_usage":true,"continuous_usage_stats":true},'
_PREFIX: Final = {
    VLLM: _COUNTING,
    SIMULATOR: _COUNTING,
    LLAMACPP: b'{"stream_options":{"include_usage":true},"timings_per_token":true,',
}
_PREFIX_OF_OTHERS: Final = b'{"stream_options":{"include_usage":true},'

_MODEL: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_SPELLED_OUT: Final = b"\\u006"  # how the letters of "model" look when a key is written with escapes
_MOST: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_YES: Final = frozenset({b"true", b"1"})
_NO: Final = frozenset({b"false", b"0", b""})


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request that may be forwarded. Three flags say what the client itself asked to see."""

    endpoint: Endpoint
    model: str
    stream: bool
    body: bytes = field(repr=False)
    content_type: str = "application/json"
    choices: int = 1
    """How many answers the client asked for at once (``n``)."""
    asks_itself: bool = False
    """Whether the client sent one of the fields that we set, so that they cannot just be put in front."""
    include_usage: bool = False
    continuous_usage: bool = False
    timings: bool = False
    max_tokens: int | None = None
    """The most tokens of one answer, as the client wants it."""
    prompt_chars: int = 0
    """Characters of text in the prompt; of a body that is not understood, its octets."""
    prefix: int | None = None
    """By what its conversation is known (``core/affinity.py``), where seeing one before saves an engine work."""
    continuable: str = "not streamed"
    """Why its answer must not be continued by another worker; EMPTY means that it may."""
    model_span: multipart.Span | None = None
    """Where the model's name lies in a form."""

    def body_for(self, engine: str, engine_name: str = "") -> bytes:
        """The body as that engine gets it. ``engine_name``: what it calls the model; empty: as the client does."""
        name = engine_name or self.model
        counted = self.stream and self.endpoint.include_usage
        if counted and self.asks_itself:
            return self.written(orjson.loads(self.body), engine, name)
        body = self.body
        if name != self.model:
            renamed = self._renamed(name)
            if renamed is None:
                return self.written(orjson.loads(self.body), engine, name)
            body = renamed
        if not counted:
            return body
        at = body.index(b"{") + 1
        return _PREFIX.get(engine, _PREFIX_OF_OTHERS) + body[at:]

    def written(self, fields: dict[str, object], engine: str, engine_name: str) -> bytes:
        """These fields as a body for that engine, with the model's name and the counts asked for. InvalidInput:
        they are nested too deep.
        """
        ours: dict[str, object] = {"model": engine_name or self.model}
        if self.stream and self.endpoint.include_usage:
            options = fields.get("stream_options")
            asked = {**options} if isinstance(options, dict) else {}
            asked["include_usage"] = True
            if engine in (VLLM, SIMULATOR):
                asked["continuous_usage_stats"] = True
            elif engine == LLAMACPP:
                ours["timings_per_token"] = True
            ours["stream_options"] = asked
        try:
            return orjson.dumps({**fields, **ours})
        except orjson.JSONEncodeError:  # reads four times the depth that it writes
            raise InvalidInput("body", "nested too deep") from None

    def _renamed(self, name: str) -> bytes | None:
        """The client's bytes with another model; None when it is not plain where the name stands."""
        if self.model_span is not None:
            begin, end = self.model_span
            return self.body[:begin] + name.encode() + self.body[end:]
        # The key was read. Written once, and nowhere as \u006d..., these quotes are that key, whatever is nested.
        if self.body.count(b'"model"') != 1 or _SPELLED_OUT in self.body:
            return None
        found = _MODEL.search(self.body)
        assert found is not None, "the one place of the key that was read"
        return self.body[: found.start(1)] + orjson.dumps(name) + self.body[found.end(1) :]


def parse(endpoint: Endpoint, body: bytes, content_type: str = "application/json") -> InferenceRequest:
    """The request in that body.

    Raises InvalidInput naming the field, MalformedBody when there is none, UnsupportedMediaType when the endpoint
    takes a form and this is not one.
    """
    if endpoint.body is Body.MULTIPART or (endpoint.scope == "pass_through" and multipart.is_form(content_type)):
        return _form(endpoint, body, content_type)
    if _most_values(body) > MAX_VALUES:
        raise InvalidInput("body", f"holds more than {MAX_VALUES} values")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"not valid JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise MalformedBody("must be a JSON object")
    model = _model(fields.get("model"))
    if endpoint.required == "messages":
        _check_messages(fields.get("messages"))
    elif endpoint.required and fields.get(endpoint.required) is None:
        raise InvalidInput(endpoint.required, "is needed")
    stream = False
    if endpoint.streams:
        known = endpoint.scope != "pass_through"
        stream = _flag(fields, "stream", "stream") if known else fields.get("stream") is True
    options: dict[str, object] = {}
    timings = False
    if endpoint.include_usage:
        options = _options(fields.get("stream_options"), stream=stream)
        timings = _flag(fields, "timings_per_token", "timings_per_token")
    return InferenceRequest(
        endpoint,
        model,
        stream,
        body,
        content_type,
        choices=_choices(fields.get("n")),
        asks_itself=endpoint.include_usage and ("stream_options" in fields or "timings_per_token" in fields),
        include_usage=_flag(options, "include_usage", "stream_options.include_usage"),
        continuous_usage=_flag(options, "continuous_usage_stats", "stream_options.continuous_usage_stats"),
        timings=timings,
        max_tokens=next((most for name in _MOST if (most := _positive(fields.get(name))) is not None), None),
        prompt_chars=prompts.characters(fields, len(body)),
        prefix=prefix_of(fields, model) if endpoint.generates else None,
        continuable=prompts.refusal(fields, endpoint, stream=stream),
    )


def _form(endpoint: Endpoint, body: bytes, content_type: str) -> InferenceRequest:
    found = multipart.spans(body, content_type)

    def value(name: str) -> bytes:
        begin, end = found.get(name, (0, 0))
        if end - begin > 4 * MAX_MODEL_NAME:  # octets of so many characters
            raise InvalidInput(name, f"at most {MAX_MODEL_NAME} characters")
        return body[begin:end]

    if endpoint.required and endpoint.required not in found:
        raise InvalidInput(endpoint.required, "is needed")
    try:
        model = _model(value("model").decode())
    except UnicodeDecodeError:
        raise InvalidInput("model", "must be UTF-8") from None
    asked = value("stream").strip().lower()
    if endpoint.streams and asked not in _YES | _NO:
        raise InvalidInput("stream", "must be true or false")
    return InferenceRequest(
        endpoint,
        model,
        endpoint.streams and asked in _YES,
        body,
        content_type,
        prompt_chars=len(body),
        continuable=prompts.refusal({}, endpoint, stream=False),
        model_span=found["model"],
    )


def _model(model: object) -> str:
    if not isinstance(model, str) or not model:
        raise InvalidInput("model", "must be a string that is not empty")
    if len(model) > MAX_MODEL_NAME:
        raise InvalidInput("model", f"at most {MAX_MODEL_NAME} characters")
    return model


def _options(options: object, *, stream: bool) -> dict[str, object]:
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InvalidInput("stream_options", "must be an object")
    if not stream:
        raise InvalidInput("stream_options", "only allowed when stream is true")
    return options


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


def _flag(fields: Mapping[str, object], key: str, name: str) -> bool:
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(name, "must be true or false")
    return value is True


def _choices(value: object) -> int:
    choices = _positive(value) or 1
    if choices > MAX_CHOICES:
        raise InvalidInput("n", f"at most {MAX_CHOICES}")
    return choices


def _positive(value: object) -> int | None:
    return min(value, MAX_TOKENS) if type(value) is int and value > 0 else None
