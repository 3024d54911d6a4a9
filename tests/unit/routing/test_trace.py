"""Routing measured on a trace: how much of the prompts is in a cache, who moves, and how even the load is."""

from collections import Counter
from random import Random

import pytest

from mesh.routing.affinity import within_bound
from mesh.routing.choose import choose
from mesh.routing.values import BALANCED, PREFIX, PREFIX_SPILL, ROUND_ROBIN, SESSION, Ask, Candidate
from tests.unit.routing.trace import Turn, Worker, fleet, key, oracle, record, run
from tests.unit.routing.values import ask, candidate


class Router:
    """What a gateway does around the decision: it draws, and remembers who had a conversation last."""

    def __init__(self, policy: str, seed: int = 0) -> None:
        self.policy, self.random = policy, Random(seed)
        self.last: dict[int, str] = {}
        self.turns = 0
        self.reasons: Counter[str] = Counter()

    def __call__(self, turn: Turn, candidates: tuple[Candidate, ...], _workers: dict[str, Worker]) -> str:
        draw = (self.random.getrandbits(32), self.random.getrandbits(32))
        asked = Ask(self.policy, turn.prefix, None, draw, self.turns, self.last.get(turn.prefix, ""))
        decision = choose(candidates, asked)
        assert decision is not None
        if self.policy == PREFIX:
            assert decision.worker_id in {one.worker_id for one in within_bound(candidates)}
        self.turns += 1
        self.last[turn.prefix] = decision.worker_id
        self.reasons[decision.reason] += 1
        return decision.worker_id


@pytest.mark.parametrize("policy", [BALANCED, PREFIX, SESSION])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("arrivals_per_s", [1.2, 3.0])
def test_prefixes_are_found_nearly_as_often_as_by_an_oracle(policy: str, seed: int, arrivals_per_s: float) -> None:
    turns = record(seed, arrivals_per_s=arrivals_per_s)
    assert len(turns) > 1000
    best = run(turns, fleet(), oracle)
    workers = fleet()
    share = run(turns, workers, Router(policy))
    assert share >= 0.9 * best, f"{share:.3f} of the prompts, an oracle {best:.3f}"
    even = len(turns) / len(workers)
    assert max(one.taken for one in workers.values()) < 2 * even


def test_without_a_prefix_half_of_it_would_be_lost() -> None:
    turns = record(1)
    assert run(turns, fleet(), Router(ROUND_ROBIN)) < 0.6 * run(turns, fleet(), oracle)


def test_workers_with_few_slots_find_prefixes_as_well() -> None:
    turns = record(3)
    best = run(turns, fleet(slots=4), oracle)
    router = Router(BALANCED)
    assert run(turns, fleet(slots=4), router) >= 0.9 * best
    assert router.reasons[PREFIX_SPILL] > 50, "and it was not because nobody was busy"


KEYS = [key(f"session-{at}") for at in range(2000)]


def moved(before: list[Candidate], after: list[Candidate], policy: str) -> list[tuple[str, str]]:
    named = policy == SESSION
    pairs = [
        (choose(before, asked), choose(after, asked))
        for one in KEYS
        for asked in [ask(policy, session=one) if named else ask(policy, prefix=one)]
    ]
    return [(old.worker_id, new.worker_id) for old, new in pairs if old and new and old.worker_id != new.worker_id]


@pytest.mark.parametrize("policy", [BALANCED, PREFIX, SESSION])
@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_a_worker_that_joins_takes_its_share_and_nothing_else_moves(policy: str, count: int) -> None:
    before = [candidate(f"w-{at}") for at in range(count)]
    went = moved(before, [*before, candidate("new")], policy)
    assert len(went) <= 1.5 / (count + 1) * len(KEYS)
    assert {new for _, new in went} == {"new"}


@pytest.mark.parametrize("policy", [BALANCED, PREFIX, SESSION])
@pytest.mark.parametrize("count", [3, 8, 20])
def test_of_a_worker_that_leaves_only_its_own_move(policy: str, count: int) -> None:
    before = [candidate(f"w-{at}") for at in range(count)]
    went = moved(before, before[1:], policy)
    assert len(went) <= 1.5 / count * len(KEYS)
    assert {old for old, _ in went} == {"w-0"}


@pytest.mark.parametrize("with_prefixes", [True, False])
@pytest.mark.parametrize("at_once", [1, 20, 60])
def test_equal_replicas_get_equal_load(with_prefixes: bool, at_once: int) -> None:
    random = Random(5)
    busy: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    running: list[str] = []
    names = [f"w-{at}" for at in range(8)]
    for turn in range(10_000):
        candidates = [Candidate(name, "n", busy[name], 0.0, 8, 1.0, 0.0, 0) for name in names]
        prefix = random.getrandbits(64) if with_prefixes else None
        draw = (random.getrandbits(32), random.getrandbits(32))
        decision = choose(candidates, Ask(BALANCED, prefix, None, draw, turn))
        assert decision is not None
        taken[decision.worker_id] += 1
        busy[decision.worker_id] += 1
        running.append(decision.worker_id)
        if len(running) >= at_once:
            busy[running.pop(random.randrange(len(running)))] -= 1
    assert max(taken.values()) <= 1.1 * 1250
    assert min(taken[name] for name in names) >= 0.9 * 1250
