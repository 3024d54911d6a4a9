"""Finds the fields of a form (multipart/form-data) without copying its file.

Strict on purpose: whatever two readers could understand differently is refused, because the engine reads the form
again and must come to the same model.
"""

import re
from typing import Final

from gateway.core.errors import MalformedBody, UnsupportedMediaType
from mesh.kit.errors import InvalidInput

MAX_PARTS: Final = 64
MAX_HEAD: Final = 4096  # octets of one part's header lines
MAX_BOUNDARY: Final = 70  # RFC 2046

Span = tuple[int, int]
"""Where a part's content begins and ends."""

_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"\\\r\n]+)"|([^\s";,]+))', re.IGNORECASE)
_PARAMETER: Final = re.compile(rb';[ \t]*([A-Za-z0-9*_-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";]*))[ \t]*')
_DISPOSITION: Final = b"content-disposition"


def is_form(content_type: str) -> bool:
    """Whether that is the content type of a form."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def spans(body: bytes, content_type: str) -> dict[str, Span]:
    """Where each field's content lies, by name.

    Raises UnsupportedMediaType when the content type is not a form's, MalformedBody when the body is no form,
    InvalidInput when a field comes twice or there are too many. Lists (``name[]``) may come in several parts, of
    which the first is told.
    """
    if not is_form(content_type):
        raise UnsupportedMediaType("the body must be multipart/form-data")
    delimiter = b"--" + _boundary(content_type)
    if not body.startswith(delimiter + b"\r\n"):
        raise MalformedBody("the form does not begin with its boundary")
    found: dict[str, Span] = {}
    at = len(delimiter) + 2
    delimiter = b"\r\n" + delimiter
    for _ in range(MAX_PARTS):
        blank = body.find(b"\r\n\r\n", at, at + MAX_HEAD)
        if blank < 0:
            raise MalformedBody(f"a part of the form has no end of its headers within {MAX_HEAD} bytes")
        name = _field(body[at:blank])
        begin = blank + 4
        end = body.find(delimiter, begin)
        if end < 0:
            raise MalformedBody(f"the form breaks off in its field {name!r}")
        if name not in found:
            found[name] = (begin, end)
        elif not name.endswith("[]"):  # which one counts is for the engine to say
            raise InvalidInput(name, "comes twice in the form")
        at = end + len(delimiter) + 2
        following = body[at - 2 : at]
        if following == b"--":
            return found
        if following != b"\r\n":
            raise MalformedBody(f"the boundary after the form's field {name!r} is not alone on its line")
    raise InvalidInput("body", f"a form of more than {MAX_PARTS} parts")


def _boundary(content_type: str) -> bytes:
    found: list[tuple[str, str]] = _BOUNDARY.findall(content_type)
    if len(found) != 1:
        raise MalformedBody("the content type must name one boundary")
    text = found[0][0] or found[0][1]
    if len(text) > MAX_BOUNDARY or not text.isascii():
        raise MalformedBody(f"the boundary must be at most {MAX_BOUNDARY} ASCII characters")
    return text.encode("ascii")


def _field(head: bytes) -> str:
    """The name in a part's headers."""
    value = b""
    for line in head.split(b"\r\n"):
        key, _, rest = line.partition(b":")
        if key.strip().lower() == _DISPOSITION:
            if value:
                raise MalformedBody("a part of the form has two dispositions")
            value = rest.strip()
    kind, semicolon, _ = value.partition(b";")
    if kind.strip().lower() != b"form-data" or not semicolon:
        raise MalformedBody("a part of the form has no content-disposition: form-data with a name")
    parameters: dict[bytes, bytes] = {}
    at = value.index(b";")
    while at < len(value):
        found = _PARAMETER.match(value, at)
        if found is None:
            raise MalformedBody("a part's content-disposition cannot be read")
        key = found[1].lower()
        if key in parameters or key == b"name*":
            raise MalformedBody("a part's content-disposition names its field twice")
        parameters[key] = found[3] if found[2] is None else found[2]
        at = found.end()
    try:
        name = parameters.get(b"name", b"").decode()
    except UnicodeDecodeError:
        name = ""
    if not name or "\\" in name:
        raise MalformedBody("a part of the form has no name that can be read")
    return name
