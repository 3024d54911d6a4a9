"""Limits: what they add up to, and how much a peer may do wrong."""

import pytest

from mesh.link.limits import FAULT_WINDOW_S, MAX_FAULTS, FaultBudget, Limits


def test_shares_and_the_common_half_add_up_to_what_a_link_may_hold() -> None:
    limits = Limits()
    assert limits.common + limits.streams * limits.share == limits.octets == 16 * 1024 * 1024
    assert limits.share == 4 * 1024


def test_a_share_is_never_more_than_a_window() -> None:
    limits = Limits(streams=2)
    assert limits.share == limits.window


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="two windows"):
        Limits(octets=256 * 1024)
    with pytest.raises(ValueError, match="a share"):
        Limits(window=256, octets=512)
    with pytest.raises(ValueError, match="name every stream"):
        Limits(streams=10_000)


def test_a_peer_may_break_nineteen_rules_a_minute() -> None:
    budget = FaultBudget()
    assert all(budget.spend(float(i)) for i in range(MAX_FAULTS - 1))
    assert not budget.spend(MAX_FAULTS - 1.0)


def test_old_faults_are_forgiven() -> None:
    budget = FaultBudget()
    apart = FAULT_WINDOW_S / (MAX_FAULTS - 1) + 0.01
    assert all(budget.spend(i * apart) for i in range(5 * MAX_FAULTS))
