"""Fields of a form are found where they are, without a copy, and what could be read in two ways is refused."""

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import MalformedBody, UnsupportedMediaType
from gateway.core.multipart import MAX_HEAD, MAX_PARTS, is_form, spans
from mesh.kit.errors import InvalidInput

TYPE = "multipart/form-data; boundary=b0"


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--b0\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0--\r\n"


def test_each_field_is_found_where_it_is() -> None:
    body = form(
        part("model", b"m"), part("file", b"\x00\r\n--b\r\n\xff", '; filename="a;b=\\"c.wav"'), part("x", b"")
    )
    found = spans(body, TYPE)
    assert {name: body[begin:end] for name, (begin, end) in found.items()} == {
        "model": b"m",
        "file": b"\x00\r\n--b\r\n\xff",
        "x": b"",
    }


@pytest.mark.parametrize(
    "content_type",
    [TYPE, 'Multipart/Form-Data; boundary="b0"', "multipart/form-data; charset=utf-8; boundary=b0 ; x=y"],
)
def test_the_boundary_may_be_written_in_several_ways(content_type: str) -> None:
    assert is_form(content_type)
    assert "model" in spans(form(part("model", b"m")), content_type)


def test_a_name_may_be_bare_and_headers_in_any_case_and_order() -> None:
    body = (
        b"--b0\r\nX: y\r\ncontent-disposition:form-data;name=model\r\nContent-Type: text/plain\r\n\r\nm\r\n--b0--"
    )
    assert list(spans(body, TYPE)) == ["model"]


def test_another_content_type_is_no_form() -> None:
    assert not is_form("application/json")
    with pytest.raises(UnsupportedMediaType):
        spans(b"{}", "application/json")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=a; boundary=b0",
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=é",
    ],
)
def test_a_boundary_that_is_not_one_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedBody, match="boundary"):
        spans(form(part("model", b"m")), content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"preamble\r\n" + form(part("model", b"m")),
        b"--b0--\r\n",
        b"--b0\r\n\r\nm\r\n--b0--",
        part("model", b"m"),
        part("model", b"m") + b"--b0",
        part("model", b"m") + b"--b0x",
        form(part("model", b"m", "x" * MAX_HEAD)),
        form(b"--b0\r\nContent-Disposition: attachment; name=model\r\n\r\nm\r\n"),
        form(b"--b0\r\nContent-Disposition: form-data\r\n\r\nm\r\n"),
        form(b"--b0\r\nContent-Type: text/plain\r\n\r\nm\r\n"),
        form(part("model", b"m", '; name="other"')),
        form(part("model", b"m", "; name*=utf-8''other")),
        form(part("model", b"m", " other")),
        form(part("mod\\el", b"m")),
        form(part("", b"m")),
        form(b'--b0\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nm\r\n'),
        form(
            b"--b0\r\nContent-Disposition: form-data; name=a\r\n"
            b"Content-Disposition: form-data; name=model\r\n\r\nm\r\n"
        ),
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        spans(body, TYPE)


def test_a_field_that_comes_twice_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        spans(form(part("model", b"a"), part("model", b"b")), TYPE)
    assert caught.value.field == "model"


def test_lists_may_come_in_several_parts() -> None:
    assert list(spans(form(part("of[]", b"a"), part("of[]", b"b")), TYPE)) == ["of[]"]


def test_there_are_not_endlessly_many_parts() -> None:
    assert len(spans(form(*(part(f"f{at}", b"") for at in range(MAX_PARTS))), TYPE)) == MAX_PARTS
    with pytest.raises(InvalidInput, match="parts"):
        spans(form(*(part(f"f{at}", b"") for at in range(MAX_PARTS + 1))), TYPE)


def test_a_file_is_not_copied() -> None:
    body = form(part("file", b"\x00" * 4_000_000, "; filename=a"), part("model", b"m"))
    tracemalloc.start()
    try:
        spans(body, TYPE)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 100_000


names = st.text("abcdefghij_-é ", min_size=1, max_size=8)


@given(st.dictionaries(names, st.binary(max_size=40).filter(lambda content: b"--b0" not in content), max_size=8))
def test_whatever_the_contents_are_they_are_found(fields: dict[str, bytes]) -> None:
    body = form(part("first", b"1"), *(part(name, content) for name, content in fields.items() if name != "first"))
    found = spans(body, TYPE)
    assert {name: body[begin:end] for name, (begin, end) in found.items()} == {"first": b"1", **fields} | {
        "first": b"1"
    }


@given(st.binary(max_size=200))
def test_whatever_comes_it_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidInput):  # MalformedBody is one
        spans(b"--b0\r\n" + body, TYPE)
