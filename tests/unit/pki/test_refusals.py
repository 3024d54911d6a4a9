"""Which refused calls are worth a line, and whom an address counts as."""

import pytest

from pki.refusals import EVERY_S, Refusals, source_of


def test_one_line_a_minute_says_how_many_there_were() -> None:
    said = Refusals()
    assert [said.count("a", "r", now) for now in (0, 1, EVERY_S - 1)] == [1, 0, 0]
    assert said.count("a", "r", EVERY_S) == 3
    assert said.count("a", "r", EVERY_S + 1) == 0
    assert said.count("a", "r", 3 * EVERY_S) == 2


def test_callers_and_reasons_are_told_apart() -> None:
    said = Refusals()
    assert [said.count(who, why, 0) for who, why in (("a", "r"), ("b", "r"), ("a", "s"))] == [1, 1, 1]


def test_an_attacker_with_many_addresses_gets_neither_memory_nor_lines() -> None:
    said = Refusals(capacity=10)
    assert sum(said.count(f"{n}", "r", 1) for n in range(1000)) == 10
    assert len(said) == 10
    assert said.count("new", "r", 1 + EVERY_S) == 1
    assert len(said) == 10


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("ipv4:192.0.2.7:51000", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:aaaa::1%5D:51000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:bbbb::2]:51000", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:51000", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:51000", "fe80::/64"),
        ("unix:/tmp/socket", "unix:/tmp/socket"),
    ],
)
def test_a_peer_counts_as_its_address_and_a_v6_one_as_its_64(peer: str, source: str) -> None:
    assert source_of(peer) == source
