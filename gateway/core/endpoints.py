"""What the OpenAI endpoint consists of: one row per path, and what is particular about it. Data, no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Counts(StrEnum):
    """Where an engine says its token counts."""

    OPENAI = "openai"  # usage.prompt_tokens, usage.completion_tokens
    RESPONSES = "responses"  # usage.input_tokens, .output_tokens; in a stream inside response.completed
    MESSAGES = "messages"  # as Anthropic: usage of message_start and of message_delta
    NONE = "none"


class Body(StrEnum):
    """How the request's body is written."""

    JSON = "json"
    MULTIPART = "multipart"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path that clients may post to. ``scope``: what a key needs; also the label in records and metrics."""

    path: str
    scope: str
    counts: Counts = Counts.OPENAI
    body: Body = Body.JSON
    streams: bool = False
    """Whether ``stream: true`` gives server-sent events."""
    include_usage: bool = False
    """Whether a stream tells its counts only when asked by ``stream_options.include_usage``."""
    ends_with_done: bool = True
    """Whether a whole stream ends with ``[DONE]``."""
    required: str = ""
    """The field without which there is nothing to do."""
    tokens: bool = True
    """Whether it costs tokens."""
    any_kind: bool = False
    """Whether answers in one piece may be something else than JSON."""
    generates: bool = False
    """Whether its answers are tokens as well."""


_ALL = (
    Endpoint(
        "/v1/chat/completions", "chat", streams=True, include_usage=True, generates=True, required="messages"
    ),
    Endpoint(
        "/v1/completions", "completions", streams=True, include_usage=True, generates=True, required="prompt"
    ),
    Endpoint("/v1/embeddings", "embeddings", required="input"),
    Endpoint(
        "/v1/responses",
        "responses",
        Counts.RESPONSES,
        streams=True,
        ends_with_done=False,
        generates=True,
        required="input",
    ),
    Endpoint(
        "/v1/messages",
        "messages",
        Counts.MESSAGES,
        streams=True,
        ends_with_done=False,
        generates=True,
        required="messages",
    ),
    Endpoint("/v1/rerank", "rerank", required="query"),
    Endpoint("/v2/rerank", "rerank", required="query"),
    Endpoint("/rerank", "rerank", required="query"),
    Endpoint("/v1/score", "score"),
    Endpoint("/score", "score"),
    Endpoint("/tokenize", "tokenize", Counts.NONE, tokens=False),
    Endpoint("/detokenize", "tokenize", Counts.NONE, tokens=False),
    Endpoint("/v1/messages/count_tokens", "tokenize", Counts.NONE, required="messages", tokens=False),
    Endpoint(
        "/v1/audio/transcriptions", "audio", body=Body.MULTIPART, streams=True, any_kind=True, required="file"
    ),
    Endpoint("/v1/audio/translations", "audio", body=Body.MULTIPART, streams=True, any_kind=True, required="file"),
)
ENDPOINTS: Final[Mapping[str, Endpoint]] = {one.path: one for one in _ALL}

SCOPES: Final = frozenset({one.scope for one in _ALL} | {"models", "pass_through"})
ROUTE_DEBUG: Final = "route_debug"
"""The scope of operators' keys: answers name worker, node and reason. Never implied."""


def passed_through(path: str) -> Endpoint:
    """A path that a deployment declares: its engine knows what it means, we do not."""
    return Endpoint(path, "pass_through", streams=True, ends_with_done=False, any_kind=True)
