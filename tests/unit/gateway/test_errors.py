"""Every error has a shape of OpenAI's, and the table has no row too many."""

import json
from collections.abc import Iterator

import pytest

from gateway.api import errors
from gateway.core import errors as gw
from gateway.core import queue, refusals
from gateway.core.endpoints import Counts
from mesh.kit import errors as kit


def subclasses(of: type[kit.MeshError]) -> Iterator[type[kit.MeshError]]:
    for one in of.__subclasses__():
        yield one
        yield from subclasses(one)


KNOWN = [found for module in (kit, gw, queue, refusals) for found in vars(module).values()]
# Never shown to a client: nobody creates, deletes or fences anything here.
NOT_SHOWN = {kit.AlreadyExists, kit.InUse, kit.StaleEpoch}


def test_every_error_a_client_may_meet_has_a_status_and_every_status_an_error() -> None:
    codes = {one.code for one in subclasses(kit.MeshError) if one in KNOWN and one not in NOT_SHOWN}
    assert codes == set(errors.SHAPES)


SAMPLES: list[tuple[kit.MeshError, int, str | None, str]] = [
    (kit.InvalidInput("messages", "x"), 400, "messages", "invalid_input"),
    (gw.MalformedBody("x"), 400, None, "invalid_json"),
    (kit.Unauthenticated("invalid_api_key"), 401, None, "invalid_api_key"),
    (kit.PermissionDenied("no_access"), 403, None, "no_access"),
    (kit.NotFound("model", "m"), 404, "model", "model_not_found"),
    (gw.UnknownRoute("x"), 404, None, "unknown_url"),
    (gw.MethodNotAllowed("x", allowed="GET"), 405, None, "method_not_allowed"),
    (gw.RequestTimeout("x"), 408, None, "request_timeout"),
    (gw.BodyTooLarge(5), 413, None, "request_too_large"),
    (gw.UnsupportedMediaType("x"), 415, None, "unsupported_media_type"),
    (gw.WorkersBusy("m"), 429, None, "workers_busy"),
    (kit.TooManyRequests("x", retry_after_s=7.2), 429, None, "too_many_requests"),
    (queue.QueueFull("m", retry_after_s=3), 429, None, "queue_full"),
    (queue.QueueTimeout("m", retry_after_s=3), 503, None, "queue_timeout"),
    (gw.ClientStalled("x"), 499, None, "client_stalled"),
    (gw.UpstreamFailed("x"), 502, None, "upstream_failed"),
    (gw.UpstreamLost("x"), 502, None, "upstream_lost"),
    (gw.NoReadyWorker("m"), 503, None, "no_ready_worker"),
    (gw.Overloaded("x"), 503, None, "gateway_overloaded"),
    (gw.UpstreamTimeout("x"), 504, None, "upstream_timeout"),
    (kit.MeshError("not meant for anybody"), 500, None, "internal"),
]


@pytest.mark.parametrize(("exc", "status", "param", "code"), SAMPLES, ids=lambda value: type(value).__name__)
def test_errors_have_openais_shape(exc: kit.MeshError, status: int, param: str | None, code: str) -> None:
    assert errors.status_of(exc) == status
    shown = json.loads(errors.body_of(exc))["error"]
    assert set(shown) == {"message", "type", "param", "code"}
    assert (shown["param"], shown["code"]) == (param, code)
    assert shown["message"]
    event = errors.event_of(exc)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")


@pytest.mark.parametrize(("exc", "status", "_param", "_code"), SAMPLES, ids=lambda value: type(value).__name__)
def test_who_should_come_again_is_told_when(
    exc: kit.MeshError, status: int, _param: str | None, _code: str
) -> None:
    headers = errors.headers_of(exc)
    assert ("Retry-After" in headers) == (status in (429, 502, 503))
    assert ("WWW-Authenticate" in headers) == (status == 401)
    assert ("Allow" in headers) == (status == 405)


def test_the_retry_time_of_a_limit_is_its_own() -> None:
    assert errors.headers_of(kit.TooManyRequests("x", retry_after_s=7.2)) == {"Retry-After": "8"}


@pytest.mark.parametrize("exc", [sample[0] for sample in SAMPLES], ids=lambda value: type(value).__name__)
def test_in_a_stream_of_messages_the_event_has_the_name_without_which_anthropics_clients_pass_it_over(
    exc: kit.MeshError,
) -> None:
    name, data, *rest = errors.event_of(exc, Counts.MESSAGES).split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    shown = json.loads(data.removeprefix(b"data: "))
    assert shown == {"type": "error", **json.loads(errors.body_of(exc))}


@pytest.mark.parametrize("counts", [Counts.OPENAI, Counts.RESPONSES, Counts.MESSAGES])
def test_an_engines_error_on_many_lines_is_one_event(counts: Counts) -> None:
    body = b'{\r\n  "type": "strange",\n  "error": {"message": "a\\nb"}\n}\n'
    event = errors.event(errors.answer_of_engine(400, body)[1], counts)
    lines = event.removesuffix(b"\n\n").split(b"\n")
    assert len(lines) == (2 if counts is Counts.MESSAGES else 1)
    shown = json.loads(lines[-1].removeprefix(b"data: "))
    assert shown["error"] == {"message": "a\nb"}
    assert shown["type"] == ("error" if counts is Counts.MESSAGES else "strange")


def test_an_engines_error_in_openais_shape_passes_byte_for_byte() -> None:
    body = b'{"error": {"code":400,"message":"no","type":"invalid_request_error"}}'
    assert errors.answer_of_engine(400, body) == (400, body)
    assert errors.answer_of_engine(500, body) == (500, body)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, b"<html>", "the engine answered 500"),
        (422, b'{"message":"too long"}', "too long"),
        (400, b"[]", "the engine answered 400"),
        (400, b'{"error":"text"}', "the engine answered 400"),
    ],
)
def test_an_engines_error_in_another_shape_is_told_in_openais(status: int, body: bytes, message: str) -> None:
    given, told = errors.answer_of_engine(status, body)
    assert given == status
    assert json.loads(told)["error"]["message"] == message


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_an_engine_holds_against_us_is_not_the_clients_fault(status: int) -> None:
    given, told = errors.answer_of_engine(status, b'{"error":{"message":"Invalid API Key"}}')
    assert given == 502
    assert b"Invalid API Key" not in told
