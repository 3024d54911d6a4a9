"""One tunnelled request as HTTP/1.1 octets, or the reason why it may not pass. Pure.

OPEN has no host and no port. What is left for a caller to choose (method, path, headers) is checked here, so that
a request reaches the named engine's public API and nothing else, and so that it is exactly one request:

* origin form only; the path is on the allow-list, canonical (no ``//``, ``.``, ``..``, encoded or not), printable;
* no CR, LF or NUL anywhere; no Upgrade; hop-by-hop headers end here; the length of the body is ours to say.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

Headers = Iterable[tuple[str, str]]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
BODILESS = frozenset({"GET", "HEAD"})  # sent without a body header when no body came
EXACT_PATHS = frozenset(
    {
        "/health",
        "/metrics",
        "/version",
        "/tokenize",
        "/detokenize",
        "/rerank",
        "/v2/rerank",
        "/score",
        "/pooling",
        "/classify",
    }
)
PREFIX = "/v1/"
MAX_PATH = 4096

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = HOP_BY_HOP | {"host", "content-length", "expect"}

_TARGET = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*)(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|]*)?")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Escapes that an engine would turn into path syntax: controls, '%', '.', '/', '\', '?', '#', DEL.
_HIDDEN = re.compile(r"%(?:[01][0-9A-Fa-f]|2[35EeFf]|3[Ff]|5[Cc]|7[Ff])")
_BLOCK = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\t\x20-\x7e\x80-\xff]*\r\n)*")
_LENGTH = re.compile(r"[0-9]{1,15}")


class NotAllowed(Exception):
    """This request may not pass; the text says why, and holds nothing of the request."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A checked request, up to the headers that say how long its body is."""

    method: str
    octets: bytes
    declared: int | None
    """Octets of body that the caller announced."""

    def whole(self, body: bytes) -> bytes:
        """The complete request, when all of its body is here."""
        if self.declared is not None and self.declared != len(body):
            raise NotAllowed("the body is not as long as announced")
        if not body and self.method in BODILESS:
            return self.octets + b"\r\n"
        return b"%bcontent-length: %d\r\n\r\n%b" % (self.octets, len(body), body)

    def opening(self) -> bytes:
        """The head of a request whose body follows in pieces: ``piece`` each, then ``closing``."""
        if self.declared is None:
            return self.octets + b"transfer-encoding: chunked\r\n\r\n"
        return b"%bcontent-length: %d\r\n\r\n" % (self.octets, self.declared)

    def piece(self, data: bytes) -> bytes:
        """Some of the body as it goes over the wire."""
        return data if self.declared is not None else b"%x\r\n%b\r\n" % (len(data), data)

    def closing(self) -> bytes:
        """What ends the body."""
        return b"" if self.declared is not None else b"0\r\n\r\n"


def request_head(method: str, target: str, headers: Headers) -> RequestHead:
    """The head of a request to an engine. NotAllowed says what is wrong with it."""
    if method not in METHODS:
        raise NotAllowed("method not allowed")
    check_target(target)
    kept: list[str] = []
    named: frozenset[str] = frozenset()
    declared: int | None = None
    for name, value in headers:
        lower = name.lower()
        if lower not in _OURS:
            kept.append(f"{name}: {value}\r\n")
        elif lower == "upgrade":
            raise NotAllowed("upgrade not allowed")
        elif lower == "connection":
            named |= {token.strip().lower() for token in value.split(",")}
            if "upgrade" in named:
                raise NotAllowed("upgrade not allowed")
        elif lower == "content-length":
            if declared is not None or not _LENGTH.fullmatch(value):
                raise NotAllowed("content-length is not one number")
            declared = int(value)
    if named:
        kept = [line for line in kept if line.partition(":")[0].lower() not in named]
    try:
        block = "".join(kept).encode("latin-1")
    except UnicodeEncodeError:
        raise NotAllowed("header with characters that HTTP does not carry") from None
    # One header may not become two: every line end in the block has to be one that we wrote.
    if block.count(b"\r\n") != len(kept) or _BLOCK.fullmatch(block) is None:
        raise NotAllowed("malformed header")
    start = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n".encode("ascii")
    return RequestHead(method, start + block, declared)


@functools.lru_cache(maxsize=128)  # engines have a dozen paths; a refusal is never remembered
def check_target(target: str) -> None:
    """Return when the target is a canonical origin-form path on the allow-list; NotAllowed otherwise."""
    match = _TARGET.fullmatch(target) if len(target) <= MAX_PATH else None
    if match is None or _ESCAPE.search(target) is not None:
        raise NotAllowed("path is not in origin form")
    path = match[1]
    if "//" in path or _HIDDEN.search(path) is not None:
        raise NotAllowed("path is not canonical")
    if any(segment.partition(";")[0] in (".", "..") for segment in path.split("/")):
        raise NotAllowed("path is not canonical")
    if path not in EXACT_PATHS and not (path.startswith(PREFIX) and len(path) > len(PREFIX)):
        raise NotAllowed("path not on the allow-list")


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """What of an engine's headers goes to the caller: lower-case names, nothing that concerns this hop only."""
    named: set[str] = set()
    kept: list[tuple[str, str]] = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name not in HOP_BY_HOP:
            kept.append((name, value))
        elif name == "connection":
            named |= {token.strip().lower() for token in value.split(",")} - {"close", "keep-alive"}
    return [pair for pair in kept if pair[0] not in named] if named else kept
