"""Errors as OpenAI's clients expect them: one table from codes to statuses, one shape for bodies and events."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Final

import orjson

from gateway.core import errors as gw
from gateway.core.endpoints import Counts
from gateway.core.queue import QueueFull, QueueTimeout
from gateway.core.refusals import LimitReached, QuotaExhausted
from mesh.kit.errors import (
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)

CLIENT_LEFT = 499  # what records and metrics say when nobody was there to be given a status
RETRY_AFTER_S = 2  # a worker that restarts, or a node that dials again, is back in seconds


@dataclass(frozen=True, slots=True)
class Shape:
    """How errors of one code are shown."""

    status: int
    type: str


_INVALID, _SERVER = "invalid_request_error", "server_error"

SHAPES: Final[Mapping[str, Shape]] = {
    InvalidInput.code: Shape(400, _INVALID),
    gw.MalformedBody.code: Shape(400, _INVALID),
    Unauthenticated.code: Shape(401, "authentication_error"),
    PermissionDenied.code: Shape(403, "permission_error"),
    NotFound.code: Shape(404, _INVALID),
    gw.UnknownRoute.code: Shape(404, _INVALID),
    gw.MethodNotAllowed.code: Shape(405, _INVALID),
    gw.RequestTimeout.code: Shape(408, _INVALID),
    gw.BodyTooLarge.code: Shape(413, _INVALID),
    gw.UnsupportedMediaType.code: Shape(415, _INVALID),
    TooManyRequests.code: Shape(429, "rate_limit_error"),
    LimitReached.code: Shape(429, "rate_limit_error"),
    QuotaExhausted.code: Shape(429, "insufficient_quota"),
    QueueFull.code: Shape(429, "rate_limit_error"),
    QueueTimeout.code: Shape(503, _SERVER),
    gw.WorkersBusy.code: Shape(429, "rate_limit_error"),
    gw.ClientStalled.code: Shape(CLIENT_LEFT, _INVALID),
    gw.UpstreamFailed.code: Shape(502, _SERVER),
    gw.UpstreamLost.code: Shape(502, _SERVER),
    Unavailable.code: Shape(503, _SERVER),
    gw.NotReady.code: Shape(503, _SERVER),
    gw.Draining.code: Shape(503, _SERVER),
    gw.Overloaded.code: Shape(503, _SERVER),
    gw.SpoolUnavailable.code: Shape(503, _SERVER),
    gw.NoReadyWorker.code: Shape(503, _SERVER),
    gw.UpstreamTimeout.code: Shape(504, _SERVER),
}
_INTERNAL = Shape(500, _SERVER)


def status_of(exc: MeshError) -> int:
    """The status an error is answered with."""
    return SHAPES.get(exc.code, _INTERNAL).status


def headers_of(exc: MeshError) -> dict[str, str]:
    """The headers that go with it."""
    shape = SHAPES.get(exc.code, _INTERNAL)
    if isinstance(exc, TooManyRequests | QueueFull | QueueTimeout):
        return {"Retry-After": str(max(1, ceil(exc.retry_after_s)))}
    if shape.status in (429, 502, 503):
        return {"Retry-After": str(RETRY_AFTER_S)}
    if shape.status == 401:
        return {"WWW-Authenticate": "Bearer"}
    return {"Allow": exc.allowed} if isinstance(exc, gw.MethodNotAllowed) else {}


def body_of(exc: MeshError) -> bytes:
    """The JSON body."""
    shape = SHAPES.get(exc.code, _INTERNAL)
    return _body(str(exc), type=shape.type, param=_param(exc), code=_code(exc))


def event_of(exc: MeshError, counts: Counts = Counts.OPENAI) -> bytes:
    """The event that ends a stream which has begun; no ``[DONE]`` follows it."""
    return event(body_of(exc), counts)


def event(body: bytes, counts: Counts) -> bytes:
    """An error's body, ours or from ``answer_of_engine``, as an event of such a stream."""
    line = body.replace(b"\r", b" ").replace(b"\n", b" ").rstrip()  # in JSON these can only be white space
    if counts is Counts.MESSAGES:
        # Anthropic's clients pass over events without a name: they would take a broken answer for a whole one.
        return b"event: error\ndata: " + line[:-1] + b',"type":"error"}\n\n'
    return b"data: " + line + b"\n\n"


def whole_answer(exc: MeshError, headers: Mapping[str, str]) -> bytes:
    """All that is sent on a connection which is closed then."""
    return _whole(status_of(exc), body_of(exc), {**headers, **headers_of(exc)})


def whole_malformed(status: int, problem: str, headers: Mapping[str, str]) -> bytes:
    """The same for octets that are no request."""
    return _whole(status, _body(problem, type=_INVALID, param=None, code="bad_request"), headers)


def _whole(status: int, body: bytes, headers: Mapping[str, str]) -> bytes:
    shown = {
        **headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{key}: {value}" for key, value in shown.items()),
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def internal_body() -> bytes:
    """For what nobody expected; it tells nothing."""
    return _body("internal error", type=_SERVER, param=None, code="internal")


def answer_of_engine(status: int, body: bytes) -> tuple[int, bytes]:
    """An engine's error as the client gets it.

    The engine speaks to us, not to the client: what it says about our way of calling it is our fault (502). A body
    in OpenAI's shape passes as it is; anything else is told in that shape.
    """
    if status in (401, 403, 404, 405, 407, 411, 413, 415, 426):
        return 502, _body(
            f"the engine refused the request: {status}", type=_SERVER, param=None, code="upstream_failed"
        )
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("error"), dict):
        return status, body
    kind, code = (_SERVER, "upstream_failed") if status >= 500 else (_INVALID, "invalid_request")
    text = fields.get("message") if isinstance(fields, dict) else None
    message = text if isinstance(text, str) else f"the engine answered {status}"
    return status, _body(message, type=kind, param=None, code=code)


def _body(message: str, *, type: str, param: str | None, code: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": type, "param": param, "code": code}})


def _param(exc: MeshError) -> str | None:
    if isinstance(exc, gw.MalformedBody):
        return None
    if isinstance(exc, InvalidInput):
        return exc.field
    return exc.kind if isinstance(exc, NotFound) else None


def _code(exc: MeshError) -> str:
    if isinstance(exc, NotFound):
        return f"{exc.kind}_not_found"
    return exc.reason if isinstance(exc, Unauthenticated | PermissionDenied) else exc.code
