"""Fixtures of the mux tests."""

import pytest

from tests.unit.link.pair import SMALL, Pair


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def small() -> Pair:
    return Pair(SMALL)
