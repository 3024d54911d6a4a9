"""The books balance, whatever was set aside and whatever was charged."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.ledger import Kind, Posting, Unit, accounts, postings
from control_plane.core.usage import MAX_MONEY, MAX_TOKENS, UsageRecord
from tests.unit.control_plane.test_usage import RECORD

TOKENS = st.sampled_from([0, 1, MAX_TOKENS]) | st.integers(0, MAX_TOKENS)
MONEY = st.sampled_from([0, 1, MAX_MONEY]) | st.integers(0, MAX_MONEY)
K1 = accounts("k1")


@st.composite
def records(draw: st.DrawFn) -> UsageRecord:
    return replace(
        RECORD,
        reserved_tokens=draw(TOKENS),
        charged_tokens=draw(TOKENS),
        reserved_money=draw(MONEY),
        charged_money=draw(MONEY),
    )


def balances(of: tuple[Posting, ...]) -> Counter[tuple[str, Unit]]:
    found: Counter[tuple[str, Unit]] = Counter()
    for one in of:
        found[one.debit, one.unit] -= one.amount
        found[one.credit, one.unit] += one.amount
    return found


@given(records())
def test_what_one_account_gives_another_takes(record: UsageRecord) -> None:
    found = balances(postings(record))
    for unit in Unit:
        assert sum(amount for (_, of), amount in found.items() if of is unit) == 0


@given(records())
def test_nothing_stays_set_aside_and_what_is_spent_is_what_was_charged(record: UsageRecord) -> None:
    found = balances(postings(record))
    for unit, charged in ((Unit.TOKEN, record.charged_tokens), (Unit.EUR, record.charged_money)):
        assert found[K1.reserved, unit] == 0
        assert found[K1.spent, unit] == charged
        assert found[K1.available, unit] == -charged


@given(records())
def test_every_posting_is_above_zero_and_the_only_one_of_its_kind(record: UsageRecord) -> None:
    made = postings(record)
    assert all(one.amount > 0 and one.debit != one.credit for one in made)
    assert len({(one.kind, one.unit) for one in made}) == len(made)


def test_what_was_not_charged_is_given_back() -> None:
    assert postings(replace(RECORD, reserved_tokens=100, charged_tokens=30)) == (
        Posting(Kind.RESERVE, Unit.TOKEN, K1.available, K1.reserved, 100),
        Posting(Kind.SETTLE, Unit.TOKEN, K1.reserved, K1.spent, 30),
        Posting(Kind.REFUND, Unit.TOKEN, K1.reserved, K1.available, 70),
    )


def test_what_was_charged_beyond_what_was_set_aside_is_an_overrun() -> None:
    assert postings(replace(RECORD, reserved_money=5, charged_money=7)) == (
        Posting(Kind.RESERVE, Unit.EUR, K1.available, K1.reserved, 5),
        Posting(Kind.SETTLE, Unit.EUR, K1.reserved, K1.spent, 5),
        Posting(Kind.OVERRUN, Unit.EUR, K1.available, K1.spent, 2),
    )


def test_a_record_that_cost_nothing_posts_nothing() -> None:
    assert postings(RECORD) == ()
