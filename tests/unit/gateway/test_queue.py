"""Who is next, who makes way, and what is remembered of those who left."""

import pytest

from gateway.core.queue import PASS_ON, FairQueue, Full, QueueFull, QueueTimeout, Ticket
from gateway.core.snapshot import Priority

INF = float("inf")
LOW, NORMAL, HIGH = Priority


def ticket(
    key: str,
    name: str = "",
    weight: int = 1,
    priority: Priority = NORMAL,
    deadline: float = INF,
    arrived: float = 0.0,
) -> Ticket[str]:
    return Ticket(key, weight, priority, deadline, arrived, name or key)


def queue(*tickets: Ticket[str], capacity: int = 1000) -> FairQueue[str]:
    made: FairQueue[str] = FairQueue(capacity)
    for one in tickets:
        assert made.push(one) is None
    return made


def order(of: FairQueue[str], now: float = 0.0, most: int = 10_000) -> list[str]:
    names: list[str] = []
    while len(names) < most and (one := of.pop(now)) is not None:
        names.append(one.payload)
    return names


def test_an_empty_queue_has_nobody() -> None:
    q = queue()
    assert (q.depth, q.depth_of("a"), q.oldest(5.0), q.pop(0.0), q.expired(INF)) == (0, 0, 0.0, None, [])
    assert not q.remove(ticket("a"))


def test_keys_take_turns_however_much_each_has() -> None:
    q = queue(*[ticket("a", f"a{n}") for n in range(4)], ticket("b", "b0"), ticket("b", "b1"), ticket("c", "c0"))
    assert order(q) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_key_of_twice_the_weight_has_twice_the_turns() -> None:
    q = queue(*[ticket("a", weight=2) for _ in range(8)], *[ticket("b") for _ in range(4)])
    assert order(q, most=9).count("a") == 6


def test_a_weight_below_one_counts_as_one() -> None:
    q = queue(*[ticket("a", weight=0) for _ in range(3)], *[ticket("b") for _ in range(3)])
    assert order(q) == ["a", "b"] * 3


def test_inside_a_key_the_earliest_deadline_goes_first_and_then_the_first_to_come() -> None:
    q = queue(
        ticket("a", "no hurry"),
        ticket("a", "late", deadline=9, arrived=2),
        ticket("a", "came first", deadline=9, arrived=1),
        ticket("a", "came next", deadline=9, arrived=1),
        ticket("a", "urgent", deadline=3),
    )
    assert order(q) == ["urgent", "came first", "came next", "late", "no hurry"]


def test_who_was_idle_gets_no_credit_for_it() -> None:
    q = queue(*[ticket("a") for _ in range(100)], ticket("b"))
    order(q, most=60)
    for _ in range(30):
        q.push(ticket("b"))
    assert order(q, most=20).count("b") == 10


def test_who_leaves_and_comes_back_saves_no_turn() -> None:
    q = queue(*[ticket("a") for _ in range(9)], *[ticket("c") for _ in range(9)])
    served = ""
    for _ in range(9):  # b never has more than one waiting, and asks again as soon as it was served
        if not q.depth_of("b"):
            q.push(ticket("b"))
        served += "".join(order(q, most=1))
    assert served == "acbacbacb"


def test_a_debt_is_forgotten_once_it_is_paid_or_nobody_waits() -> None:
    q = queue(ticket("b"), *[ticket("a") for _ in range(9)])
    assert order(q, most=3) == ["b", "a", "a"]
    q.push(ticket("b"))  # the clock has come to where its turn ended
    assert order(q, most=2) == ["b", "a"]
    order(q)
    q.push(ticket("a"))
    q.push(ticket("b"))
    assert order(q) == ["a", "b"]


def test_no_more_debts_are_remembered_than_there_are_places() -> None:
    q = queue(capacity=3)
    q.push(ticket("flood"))
    q.push(ticket("flood"))
    order(q, most=1)
    for key in "bcdef":
        q.push(ticket(key))
        assert order(q, most=1) == [key]
    band = q._bands[NORMAL]
    assert list(band.ended) == ["d", "e", "f"]
    q.push(ticket("flood"))
    assert order(q, most=1) == ["flood"]  # the clock is where all their turns ended
    q.push(ticket("g"))
    assert order(q, most=1) == ["g"]
    assert list(band.ended) == ["g"]


def test_the_highest_band_goes_first_and_hands_on_each_eighth_turn() -> None:
    q = queue(
        *[ticket("l", priority=LOW) for _ in range(3)],
        *[ticket("n") for _ in range(50)],
        *[ticket("h", priority=HIGH) for _ in range(200)],
    )
    served = order(q)
    assert served[: PASS_ON * 2] == (["h"] * 7 + ["n"]) * 2
    assert [n for n, one in enumerate(served) if one == "l"][:2] == [63, 127]


def test_a_band_with_nobody_below_hands_nothing_on() -> None:
    q = queue(*[ticket("h", priority=HIGH) for _ in range(20)])
    assert order(q, most=15) == ["h"] * 15
    q.push(ticket("l", priority=LOW))
    assert order(q, most=5) == ["h"] * 5
    assert order(q) == ["l"]


def test_a_key_may_have_requests_in_several_bands() -> None:
    q = queue(ticket("a", "low", priority=LOW), ticket("a", "high", priority=HIGH), ticket("a", "normal"))
    assert q.depth_of("a") == 3
    assert order(q) == ["high", "normal", "low"]


def test_the_expired_are_handed_out_once_and_never_popped() -> None:
    q = queue(
        ticket("a", "second", deadline=2), ticket("a", "first", deadline=1), ticket("b", "third", deadline=3)
    )
    q.push(ticket("b", "gone", deadline=1))
    assert q.remove(next(iter(reversed(q._waiting))))
    popped = q.pop(2.0)
    assert popped is not None
    assert popped.payload == "third"
    assert (q.depth, q.depth_of("a")) == (2, 0)  # they keep their places until they are collected
    assert [one.payload for one in q.expired(2.0)] == ["first", "second"]
    assert (q.depth, q.expired(9.0)) == (0, [])


def test_an_expired_ticket_can_still_be_removed_and_takes_its_place_until_then() -> None:
    late = ticket("a", deadline=1)
    q = queue(late, capacity=1)
    assert q.pop(1.0) is None
    with pytest.raises(Full):
        q.push(ticket("b"))
    assert q.remove(late)
    assert not q.remove(late)
    assert q.push(ticket("b")) is None
    assert q.expired(9.0) == []


def test_the_oldest_is_the_first_that_came_and_still_waits() -> None:
    first, second = ticket("a", arrived=1.0), ticket("b", arrived=3.0, priority=HIGH)
    q = queue(first, second)
    assert q.oldest(10.0) == 9.0
    q.remove(first)
    assert q.oldest(10.0) == 7.0


def test_one_key_cannot_fill_the_queue_against_others() -> None:
    q = queue(*[ticket("a", f"a{n}") for n in range(4)], capacity=4)
    with pytest.raises(Full):
        q.push(ticket("a"))
    assert [q.push(ticket("b")).payload for _ in range(2)] == ["a3", "a2"]  # type: ignore[union-attr]
    for key in "ab":
        with pytest.raises(Full):
            q.push(ticket(key))
    assert q.push(ticket("c")).payload in ("a1", "b")  # type: ignore[union-attr]
    assert (q.depth, q.depth_of("a") + q.depth_of("b")) == (4, 3)


def test_nobody_makes_way_where_the_two_would_only_change_sides() -> None:
    q = queue(ticket("a"), ticket("a"), ticket("b"), capacity=3)
    for key in "ab":
        with pytest.raises(Full):
            q.push(ticket(key))
    assert (q.depth_of("a"), q.depth_of("b")) == (2, 1)


def test_places_are_shared_by_weight() -> None:
    q = queue(*[ticket("a") for _ in range(12)], capacity=12)
    for _ in range(8):
        assert q.push(ticket("b", weight=2)) is not None
    with pytest.raises(Full):
        q.push(ticket("b", weight=2))
    assert (q.depth_of("a"), q.depth_of("b")) == (4, 8)


def test_the_only_ticket_of_a_key_never_makes_way() -> None:
    q = queue(*[ticket(key) for key in "abc"], capacity=3)
    with pytest.raises(Full):
        q.push(ticket("d", weight=1000))
    assert order(q) == ["a", "b", "c"]


def test_a_key_without_a_place_gets_one_from_a_key_of_any_weight() -> None:
    q = queue(*[ticket("a", weight=1000) for _ in range(4)], capacity=4)
    assert q.push(ticket("b")) is not None
    with pytest.raises(Full):
        q.push(ticket("b"))


def test_who_makes_way_is_found_after_any_change() -> None:
    a, b = [ticket("a") for _ in range(5)], [ticket("b") for _ in range(4)]
    q = queue(*a, *b, capacity=9)
    for one in a[1:4]:
        q.remove(one)  # a holds 2, which nobody noted
    for _ in range(3):
        q.push(ticket("c"))
    evicted = q.push(ticket("d"))
    assert evicted is b[3]
    for one in [a[0], a[4], *b[:2]]:
        q.remove(one)  # a holds nothing, b one
    for _ in range(3):
        q.push(ticket("e"))
    q.push(ticket("f"))
    assert q.push(ticket("g")).key_id in ("c", "e")  # type: ignore[union-attr]


def test_a_lower_weight_makes_a_key_heavier_at_once() -> None:
    q = queue(*[ticket("a", weight=4) for _ in range(4)], *[ticket("b") for _ in range(3)], capacity=8)
    q.push(ticket("a", weight=1))
    assert q.push(ticket("c")).key_id == "a"  # type: ignore[union-attr]


def test_what_was_removed_does_not_stay() -> None:
    q = queue(ticket("stays", deadline=5), ticket("stays", deadline=6), capacity=1000)
    for n in range(1000):
        one = [ticket(key, deadline=10) for key in ("stays", f"k{n}", f"k{n}")]
        for other in one:
            q.push(other)
        for other in one:
            assert q.remove(other)
    band = q._bands[NORMAL]
    flow = band.flows["stays"]
    assert max(len(band.heap), len(flow.heap), len(q._deadlines), len(q._loads)) < 100
    assert (q.depth, len(band.flows), len(q._accounts)) == (2, 1, 1)
    assert order(q) == ["stays", "stays"]
    assert [*band.heap, *band.flows, *q._deadlines, *q._loads, *q._accounts] == []


def test_refusals_say_when_to_come_again() -> None:
    full, late = QueueFull("m", retry_after_s=3.0), QueueTimeout("m", retry_after_s=4.0)
    assert [(one.code, one.retryable, one.retry_after_s) for one in (full, late)] == [
        ("queue_full", True, 3.0),
        ("queue_timeout", True, 4.0),
    ]
    assert "'m'" in str(full)
    assert "'m'" in str(late)
