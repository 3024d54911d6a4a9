"""Frames: their layout, which both ends and every version must agree on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.link.frames import (
    Kind,
    LinkError,
    Probe,
    ResetCode,
    pack,
    pack_credit,
    pack_probe,
    pack_reset,
    read_code,
    read_probe,
)
from tests.unit.link.frames import frames_of

U32 = st.integers(0, 2**32 - 1)


def test_the_layout_of_every_frame_is_fixed() -> None:
    assert pack(Kind.OPEN, 258, b"ab") == bytes.fromhex("01 00000102 00000002") + b"ab"
    assert pack(Kind.END, 1) == bytes.fromhex("04 00000001 00000000")
    assert pack_reset(3, ResetCode.FORGOTTEN) == bytes.fromhex("05 00000003 00000001 0d")
    assert pack_credit(3, 65536) == bytes.fromhex("06 00000003 00000004 00010000")
    probe = Probe(answer=True, nonce=7, highest=9, streams=frozenset({9, 2}))
    assert pack_probe(probe) == bytes.fromhex(
        "07 00000000 00000015 01 0000000000000007 00000009 00000002 00000009"
    )


def test_kinds_and_codes_keep_their_numbers() -> None:
    assert [k.name for k in Kind] == ["OPEN", "HEAD", "DATA", "END", "RESET", "CREDIT", "PROBE", "DRAIN"]
    assert list(Kind) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [c.name for c in ResetCode] == [
        "CANCEL",
        "PROTOCOL",
        "FLOW_CONTROL",
        "REFUSED",
        "WORKER_UNKNOWN",
        "WORKER_UNREADY",
        "UPSTREAM_FAILED",
        "UPSTREAM_LOST",
        "TIMEOUT",
        "LINK_LOST",
        "DRAINING",
        "TOO_MANY",
        "FORGOTTEN",
    ]
    assert list(ResetCode) == list(range(1, 14))


@given(st.booleans(), st.integers(0, 2**64 - 1), U32, st.frozensets(U32, max_size=20))
def test_a_probe_survives_the_way(answer: bool, nonce: int, highest: int, streams: frozenset[int]) -> None:
    probe = Probe(answer, nonce, highest, streams)
    [(kind, stream, payload)] = frames_of(pack_probe(probe))
    assert (kind, stream) == (Kind.PROBE, 0)
    assert read_probe(payload) == probe


def test_a_probe_with_half_a_stream_is_refused() -> None:
    with pytest.raises(LinkError) as caught:
        read_probe(bytes(15))
    assert caught.value.reason == "malformed_probe"


def test_a_code_of_a_later_version_reads_as_cancel() -> None:
    assert read_code(ResetCode.TIMEOUT) is ResetCode.TIMEOUT
    assert read_code(200) is ResetCode.CANCEL
