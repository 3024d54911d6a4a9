"""Candidates and asks that the tests of routing share."""

from hypothesis import strategies as st

from mesh.routing.values import BALANCED, POLICIES, Ask, Candidate


def candidate(
    worker: str,
    *,
    outstanding: int = 0,
    foreign: float = 0.0,
    slots: int = 4,
    weight: float = 1.0,
    kv: float = 0.0,
    cost: int = 0,
) -> Candidate:
    return Candidate(worker, f"node-of-{worker}", outstanding, foreign, slots, weight, kv, cost)


def ask(
    policy: str = BALANCED,
    *,
    prefix: int | None = None,
    session: int | None = None,
    draw: tuple[int, int] = (0, 0),
    turn: int = 0,
    last: str = "",
) -> Ask:
    return Ask(policy, prefix, session, draw, turn, last)


HASHES = st.integers(0, 2**64 - 1)
DRAWS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
NAMES = [f"w-{at}" for at in range(8)]


@st.composite
def fleets(draw: st.DrawFn, *, least: int = 1) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=least, max_size=8, unique=True))
    return [
        candidate(
            name,
            outstanding=draw(st.integers(0, 12)),
            foreign=draw(st.sampled_from([0.0, 0.1, 1.0, 2.7, 9.0])),
            slots=draw(st.integers(1, 16)),
            weight=draw(st.sampled_from([0.3, 1.0, 2.5])),
            kv=draw(st.sampled_from([0.0, 0.8, 1.0])),
            cost=draw(st.integers(0, 2)),
        )
        for name in names
    ]


ASKS = st.builds(
    Ask,
    st.sampled_from(POLICIES),
    st.none() | HASHES,
    st.none() | HASHES,
    DRAWS,
    st.integers(0, 1000),
    st.sampled_from(["", "gone", *NAMES]),
)
