"""How much may be held at once, and who is told what is not for everyone."""

import pytest

from gateway.api.bodies import Intake, Place
from gateway.api.errors import whole_answer
from gateway.api.health import is_local
from gateway.core.errors import Overloaded


def test_a_place_takes_what_it_holds_and_gives_back_all_of_it() -> None:
    intake = Intake(max_body=60, max_requests=9, max_held=100)
    with Place(intake, 60) as place:
        place.hold(10)
        assert intake.held == 10
        with Place(intake, 60) as other:
            other.hold(90)
            with pytest.raises(Overloaded):
                place.hold(11)
            assert intake.held == 100
            place.hold(9)
    assert (intake.held, intake.requests) == (0, 0)


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("::ffff:192.0.2.1", 1, 0, 0), False),
        (("192.0.2.1", 1), False),
        (("10.0.0.1", 1), False),
        (("a socket's name", 1), False),
        ((), False),
        (None, False),
    ],
)
def test_only_this_machine_is_local(peer: tuple[object, ...] | None, local: bool) -> None:
    assert is_local(peer, {}) is local
    assert not is_local(peer, {b"x-forwarded-for": b""})


def test_an_answer_in_octets_is_a_whole_one() -> None:
    head, _, body = whole_answer(Overloaded("full"), {"Server": "x"}).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nServer: x\r\nRetry-After: ")
    assert b"Content-Length: %d\r\n" % len(body) in head
