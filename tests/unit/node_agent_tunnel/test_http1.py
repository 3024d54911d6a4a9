"""What may pass to an engine, and that it is exactly one request, whatever a hub writes into an OPEN."""

import string
from dataclasses import dataclass, field
from urllib.parse import unquote

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node_agent.tunnel.http1 import (
    EXACT_PATHS,
    METHODS,
    PREFIX,
    NotAllowed,
    check_target,
    request_head,
    response_headers,
)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/chat/completions",
        "/v1/models/org--code",
        "/v1/models/org%20code",
        "/v1/responses/resp_1/cancel",
        "/v1/x?a=1&b=%2e%2e%2f&c[]=d|e/../f",
        "/health",
        "/metrics",
        "/tokenize",
        "/detokenize?x=1",
        "/version",
        "/rerank",
        "/v2/rerank",
        "/score",
        "/pooling",
        "/classify",
        "/v1/a..b/.c/d.",
    ],
)
def test_the_engines_public_api_is_reached(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "/",
        "/v1",
        "/v1/",
        "v1/models",
        "/V1/models",
        "/slots",
        "/props",
        "/healthz",
        "/health/",
        "/health/../slots",
        "/invocations",
        "/v2",
        "/v2/",
        "/v2/score",
        "/v2/rerank/",
        "/rerank/x",
        "/score/../slots",
        "/v1/../slots",
        "/v1/./models",
        "/v1/..",
        "/v1/..;/slots",
        "/v1/.;a/slots",
        "/v1//models",
        "//evil.example/v1/models",
        "///v1/models",
        "/v1/%2e%2e/slots",
        "/v1/%2E%2e/slots",
        "/v1/..%2fslots",
        "/v1/%5c..%5cslots",
        "/v1/%252e%252e/slots",
        "/v1/models%00",
        "/v1/models%0d%0ax:y",
        "/v1/models%3Fa",
        "/v1/models%23a",
        "/v1/models%7f",
        "/v1/models%",
        "/v1/models%2",
        "/v1/models%zz",
        "/v1/models?a=%",
        "/v1\\models",
        "/v1/models#fragment",
        "/v1/models?a#b",
        "/v1/mod els",
        "/v1/models\t",
        "/v1/models\n",
        "/v1/models\r\nx: y",
        "/v1/models\x00",
        "/v1/modèles",
        "/v1/\uff0e\uff0e/slots",
        "http://127.0.0.1:2375/containers/json",
        "http://localhost/v1/models",
        "https://evil.example",
        "file:///etc/passwd",
        "localhost:80",
        "[::1]:80",
        "@evil.example/v1/models",
        "/v1/" + "a" * 5000,
    ],
)
def test_everything_else_is_refused(target: str) -> None:
    with pytest.raises(NotAllowed):
        check_target(target)


@pytest.mark.parametrize(
    "method", ["", "get", "CONNECT", "TRACE", "OPTIONS", "GET ", "GET\r\n", "GET /v1/x HTTP/1.1"]
)
def test_other_methods_are_refused(method: str) -> None:
    with pytest.raises(NotAllowed):
        request_head(method, "/v1/models", [])


@pytest.mark.parametrize(
    "header",
    [
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\x00b"),
        ("x", "a\x7fb"),
        ("x", "ключ"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("x:", "a"),
        (":path", "/slots"),
        ("", "a"),
        ("transfer-encoding\x00", "chunked"),
        ("upgrade", "h2c"),
        ("Upgrade", "websocket"),
        ("connection", "upgrade"),
        ("Connection", "keep-alive, Upgrade"),
        ("content-length", "1, 1"),
        ("content-length", "+1"),
        ("content-length", "-1"),
        ("content-length", "1 "),
        ("content-length", "0x1"),
        ("content-length", ""),
        ("content-length", "١"),
        ("content-length", "9" * 30),
    ],
)
def test_headers_that_could_become_something_else_are_refused(header: tuple[str, str]) -> None:
    with pytest.raises(NotAllowed):
        request_head("POST", "/v1/models", [header])


def test_two_lengths_are_refused() -> None:
    with pytest.raises(NotAllowed):
        request_head("POST", "/v1/models", [("content-length", "1"), ("Content-Length", "1")])


def test_the_hub_cannot_say_how_the_body_is_framed_or_whom_it_is_for() -> None:
    head = request_head(
        "POST",
        "/v1/models",
        [("Host", "evil"), ("Transfer-Encoding", "chunked"), ("Expect", "100-continue"), ("TE", "x"), ("a", "b")],
    )
    assert (
        head.whole(b"xy") == b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\na: b\r\ncontent-length: 2\r\n\r\nxy"
    )


def test_a_header_that_connection_names_ends_at_this_hop() -> None:
    head = request_head("GET", "/health", [("X-Mine", "1"), ("connection", "close, x-mine"), ("b", "2")])
    assert head.whole(b"") == b"GET /health HTTP/1.1\r\nhost: localhost\r\nb: 2\r\n\r\n"


def test_a_body_in_pieces_is_framed_by_its_length_or_in_chunks() -> None:
    known = request_head("POST", "/v1/x", [("content-length", "5")])
    assert known.opening() + known.piece(b"hello") + known.closing() == (
        b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello"
    )
    unknown = request_head("POST", "/v1/x", [])
    assert unknown.opening() + unknown.piece(b"hello") + unknown.closing() == (
        b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )


def test_a_body_of_another_length_than_announced_is_refused() -> None:
    with pytest.raises(NotAllowed):
        request_head("POST", "/v1/x", [("content-length", "5")]).whole(b"four")


def test_of_an_answers_headers_those_of_the_hop_stay_here() -> None:
    assert response_headers(
        [
            (b"Content-Type", b"a"),
            (b"Connection", b"close, X-Own"),
            (b"X-Own", b"1"),
            (b"Upgrade", b"x"),
            (b"b", b"\xe9"),
        ]
    ) == [("content-type", "a"), ("b", "é")]


@dataclass(slots=True)
class Parsed:
    """A strict parser's view of octets: every request in them."""

    targets: list[bytes] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    body: bytes = b""
    done: int = 0

    def on_url(self, url: bytes) -> None:
        self.targets.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name.lower())

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done += 1


NASTY = st.sampled_from(
    (
        "\r\n",
        "\n",
        "\r",
        "\x00",
        "%00",
        "%0d%0a",
        "..",
        "%2e%2e",
        "/",
        "//",
        "\\",
        "%2f",
        "%5c",
        "?",
        "#",
        "@",
        ":",
        " ",
    )
)
LURES = st.sampled_from(
    (
        "http://",
        "169.254.169.254",
        "docker.sock",
        "/v1/",
        "/health",
        "/slots",
        "GET / HTTP/1.1",
        "chunked",
        "upgrade",
    )
)
WORDS = st.text(string.printable, max_size=8)
SPICED = st.lists(NASTY | LURES | WORDS, max_size=6).map("".join)
TARGETS = SPICED | SPICED.map(lambda text: f"/v1/{text}") | SPICED.map(lambda text: f"/health{text}")
NAMES = st.sampled_from(
    [
        "host",
        "Host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "expect",
        "te",
        "x-a",
        "X-A",
        "x-b",
    ]
)
HEADERS = st.lists(
    st.tuples(NAMES | SPICED, SPICED | st.sampled_from(["5", "close", "x-a", "chunked"])), max_size=5
)


def run(octets: bytes) -> Parsed:
    parsed = Parsed()
    httptools.HttpRequestParser(parsed).feed_data(octets)
    return parsed


@given(
    method=st.sampled_from(sorted(METHODS)) | SPICED,
    target=TARGETS,
    headers=HEADERS,
    body=st.binary(max_size=20),
    frame=st.sampled_from(["whole", "pieces"]),
)
@example(method="GET", target="/v1/x", headers=[("connection", "x-a"), ("x-a", "5")], body=b"", frame="whole")
def test_whatever_passes_is_one_request_to_the_public_api(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes, frame: str
) -> None:
    try:
        head = request_head(method, target, headers)
        if head.declared not in (None, len(body)):
            return
        in_pieces = head.opening() + (head.piece(body) if body else b"") + head.closing()
        octets = head.whole(body) if frame == "whole" else in_pieces
    except NotAllowed:
        return
    parsed = run(octets)
    assert parsed.done == 1
    assert parsed.targets == [target.encode()]
    assert parsed.body == body
    assert parsed.names.count(b"host") == 1
    assert parsed.names.count(b"content-length") + parsed.names.count(b"transfer-encoding") <= 1
    assert not {b"connection", b"upgrade", b"expect", b"te"} & set(parsed.names)
    assert len(parsed.names) <= len(headers) + 2
    # However often an engine decodes it, the path stays where it is.
    path = target.partition("?")[0]
    for _ in range(3):
        assert path in EXACT_PATHS or path.startswith(PREFIX)
        assert not {".", ".."} & {segment.partition(";")[0] for segment in path.split("/")}
        path = unquote(path)
