"""Which of several workers takes a request, by policy."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.routing.affinity import BOUND, bound, home, within_bound
from mesh.routing.choose import choose, pressure
from mesh.routing.values import (
    BALANCED,
    CHEAPEST,
    LEAST_LOAD,
    ONLY,
    POLICIES,
    PREFIX,
    PREFIX_SPILL,
    REASONS,
    ROUND_ROBIN,
    SESSION,
    SESSION_SPILL,
    Ask,
    Candidate,
    Decision,
    load_of,
)
from tests.unit.routing.values import ASKS, HASHES, ask, candidate, fleets


def replaced(fleet: list[Candidate], worker: str, **values: float) -> list[Candidate]:
    return [one._replace(**values) if one.worker_id == worker else one for one in fleet]


FLEET = [candidate(name, slots=8) for name in "abcd"]
KEY = 0x1234_5678_9ABC_DEF0
HOME = home(FLEET, KEY).worker_id


def test_nobody_is_chosen_among_nobody_and_the_only_one_among_one() -> None:
    assert choose([], ask()) is None
    for policy in POLICIES:
        assert choose([candidate("a", outstanding=99)], ask(policy, prefix=1, session=2)) == ("a", ONLY)


def test_the_one_with_the_least_to_do_for_its_size_is_chosen() -> None:
    fleet = [candidate("small", slots=2, outstanding=1), candidate("big", slots=16, outstanding=4)]
    assert choose(fleet, ask()) == ("big", LEAST_LOAD)
    fleet = [candidate("slow", outstanding=2), candidate("fast", outstanding=3, weight=2.0)]
    assert choose(fleet, ask()) == ("fast", LEAST_LOAD)


def test_what_others_sent_to_a_worker_counts_as_well() -> None:
    fleet = [candidate("a", outstanding=1, foreign=3.0), candidate("b", outstanding=3)]
    assert choose(fleet, ask()) == ("b", LEAST_LOAD)


def test_a_cache_presses_when_it_is_nearly_full() -> None:
    assert [pressure(kv) for kv in (0.0, 0.75, 0.875, 1.0)] == [0.0, 0.0, 0.5, 1.0]
    fleet = [candidate("full", kv=1.0), candidate("busy", outstanding=3)]
    assert choose(fleet, ask()) == ("busy", LEAST_LOAD)
    fleet = [candidate("used", kv=0.7), candidate("busy", outstanding=1)]
    assert choose(fleet, ask()) == ("used", LEAST_LOAD)


def test_among_equals_the_one_with_more_free_slots_wins() -> None:
    fleet = [candidate("small", slots=2), candidate("big", slots=16)]
    for draw in ((0, 0), (1, 0), (7, 9)):
        assert choose(fleet, ask(draw=draw)) == ("big", LEAST_LOAD)


def test_equals_share_what_comes() -> None:
    random = Random(1)
    fleet = [candidate(name) for name in "abcd"]
    taken = Counter(
        decision.worker_id
        for _ in range(4000)
        if (decision := choose(fleet, ask(draw=(random.getrandbits(32), random.getrandbits(32)))))
    )
    assert all(900 < taken[name] < 1100 for name in "abcd"), taken


@pytest.mark.parametrize("policy", [BALANCED, PREFIX])
def test_a_prefix_goes_to_its_home(policy: str) -> None:
    assert choose(FLEET, ask(policy, prefix=KEY)) == (HOME, PREFIX)
    busier = replaced(FLEET, HOME, outstanding=4)
    assert choose(busier, ask(policy, prefix=KEY)) == (HOME, PREFIX), "the cache is worth some waiting"


@pytest.mark.parametrize("policy", [BALANCED, PREFIX])
def test_a_home_that_is_too_busy_gives_the_request_away(policy: str) -> None:
    decision = choose(replaced(FLEET, HOME, outstanding=8), ask(policy, prefix=KEY))
    assert decision is not None
    assert decision.reason == PREFIX_SPILL
    assert decision.worker_id != HOME


def test_balanced_gives_way_to_load_and_to_pressure_where_prefix_stays() -> None:
    pressed = replaced(FLEET, HOME, kv=1.0)
    assert choose(pressed, ask(PREFIX, prefix=KEY)) == (HOME, PREFIX)
    decision = choose(pressed, ask(BALANCED, prefix=KEY))
    assert decision is not None
    assert (decision.worker_id != HOME, decision.reason) == (True, PREFIX_SPILL)


@pytest.mark.parametrize("policy", [BALANCED, PREFIX])
def test_a_conversation_that_was_given_away_stays_where_its_cache_is_now(policy: str) -> None:
    now = next(name for name in "abcd" if name != HOME)
    assert choose(FLEET, ask(policy, prefix=KEY, last=now)) == (now, PREFIX)
    assert choose(FLEET, ask(policy, prefix=KEY, last="gone")) == (HOME, PREFIX)
    decision = choose(replaced(FLEET, now, outstanding=8), ask(policy, prefix=KEY, last=now))
    assert decision == (HOME, PREFIX_SPILL)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_session_stays_whatever_the_policy(policy: str) -> None:
    busier = replaced(FLEET, HOME, outstanding=7)
    assert choose(busier, ask(policy, session=KEY)) == (HOME, SESSION)
    other = next(name for name in "abcd" if name != HOME)
    assert choose(FLEET, ask(policy, session=KEY, last=other)) == (other, SESSION)


def test_a_session_leaves_a_worker_that_is_full_while_others_are_not() -> None:
    full = replaced(FLEET, HOME, outstanding=5, foreign=3.0)
    spilled = choose(full, ask(session=KEY))
    assert spilled is not None
    assert (spilled.worker_id != HOME, spilled.reason) == (True, SESSION_SPILL)
    everybody = [one._replace(outstanding=8) for one in FLEET]
    assert choose(everybody, ask(session=KEY)) == (HOME, SESSION), "nobody is better"


def test_under_the_session_policy_a_conversation_without_a_name_is_a_session() -> None:
    assert choose(replaced(FLEET, HOME, outstanding=7), ask(SESSION, prefix=KEY)) == (HOME, SESSION)
    assert choose(replaced(FLEET, "b", outstanding=1), ask(SESSION, draw=(2, 1))) == ("d", LEAST_LOAD)


def test_round_robin_skips_nobody() -> None:
    taken = [choose(FLEET, ask(ROUND_ROBIN, prefix=KEY, turn=turn)) for turn in range(8)]
    assert taken == [Decision(name, ROUND_ROBIN) for name in "abcdabcd"]


def test_the_cheapest_with_room_is_chosen_then_the_next() -> None:
    fleet = [candidate("a", cost=5), candidate("b", cost=2), candidate("c", cost=2, outstanding=1)]
    assert choose(fleet, ask(CHEAPEST)) == ("b", CHEAPEST)
    assert choose(replaced(fleet, "b", outstanding=3, foreign=1.0), ask(CHEAPEST)) == ("c", CHEAPEST)
    full = replaced(replaced(fleet, "b", outstanding=4), "c", outstanding=4)
    assert choose(full, ask(CHEAPEST)) == ("a", CHEAPEST)
    assert choose(replaced(full, "a", outstanding=5), ask(CHEAPEST, draw=(1, 0))) == ("c", LEAST_LOAD)


def test_among_the_cheapest_a_prefix_goes_to_its_home() -> None:
    fleet = [candidate("dear", cost=9), *(one._replace(cost=1) for one in FLEET)]
    assert choose(replaced(fleet, HOME, outstanding=2), ask(CHEAPEST, prefix=KEY)) == (HOME, CHEAPEST)


@given(fleets(), ASKS)
def test_the_chosen_one_is_one_of_them_for_a_known_reason(fleet: list[Candidate], asked: Ask) -> None:
    decision = choose(fleet, asked)
    assert decision is not None
    assert decision.worker_id in {one.worker_id for one in fleet}
    assert decision.reason in REASONS


@given(fleets(), ASKS, st.randoms(use_true_random=False))
def test_the_same_candidates_in_any_order_give_the_same_decision(
    fleet: list[Candidate], asked: Ask, random: Random
) -> None:
    shuffled = fleet[:]
    random.shuffle(shuffled)
    assert choose(shuffled, asked) == choose(fleet, asked)


@given(fleets(least=2), HASHES, st.sampled_from([BALANCED, PREFIX]), st.sampled_from(["", "w-1", "w-2"]))
def test_no_prefix_ever_brings_a_worker_above_its_bound(
    fleet: list[Candidate], prefix: int, policy: str, last: str
) -> None:
    decision = choose(fleet, ask(policy, prefix=prefix, last=last))
    assert decision is not None
    within = {one.worker_id for one in within_bound(fleet)}
    assert within, "somebody always is"
    if decision.worker_id not in within:  # then it has the least to do, prefix or not
        assert policy == BALANCED
        scores = {one.worker_id: load_of(one) / (one.slots * one.weight) + pressure(one.kv) for one in fleet}
        assert scores[decision.worker_id] == min(scores.values())


@given(fleets())
def test_without_a_prefix_nobody_scores_less_than_the_chosen_one(fleet: list[Candidate]) -> None:
    decision = choose(fleet, ask())
    assert decision is not None
    scores = {one.worker_id: load_of(one) / (one.slots * one.weight) + pressure(one.kv) for one in fleet}
    assert scores[decision.worker_id] == min(scores.values())


@given(st.integers(0, 40), st.integers(1, 8))
def test_the_bound_is_above_the_fair_share_and_not_far_above(total: int, workers: int) -> None:
    share = BOUND * (total + 1) / (4 * workers)
    limit = bound(candidate("a"), share)
    assert (total + 1) / workers <= limit <= max(3, BOUND * (total + 1) / workers + 1)


@settings(max_examples=30)
@given(st.lists(HASHES, min_size=1, max_size=50))
def test_a_home_does_not_depend_on_who_else_came_or_left(keys: list[int]) -> None:
    more = [*FLEET, candidate("e", slots=8)]
    for key in keys:
        before, after = home(FLEET, key), home(more, key)
        assert after.worker_id in (before.worker_id, "e")


def test_bigger_workers_are_home_to_more() -> None:
    random = Random(2)
    fleet = [candidate("one"), candidate("two", weight=2.0), candidate("five", slots=20)]
    homes = Counter(home(fleet, random.getrandbits(64)).worker_id for _ in range(8000))
    assert abs(homes["one"] - 1000) < 150
    assert abs(homes["two"] - 2000) < 200
    assert abs(homes["five"] - 5000) < 250
