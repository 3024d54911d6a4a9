"""What a worker weighs beside others: by the names that drivers give its accelerators."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.capability import USUAL, weight

NAMES = {
    "NVIDIA H200": 4800,
    "NVIDIA H100 80GB HBM3": 3350,
    "NVIDIA GH200 480GB": 4000,
    "AMD Instinct MI300X": 5300,
    "NVIDIA A100-SXM4-80GB": 2039,
    "NVIDIA L40S": 864,
    "NVIDIA A10G": 600,
    "NVIDIA A10": 600,
    "NVIDIA L4": 300,
    "Tesla T4": 320,
    "NVIDIA GeForce RTX 4090": 1008,
    "nvidia l4": 300,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_known_by_the_name_its_driver_gives(name: str) -> None:
    assert weight([name]) == NAMES[name]


def test_a_worker_on_the_cpu_and_an_unknown_card_weigh_the_usual() -> None:
    assert weight([]) == weight(["some card of the future"]) == weight([""]) == USUAL == 1000


@given(st.lists(st.sampled_from(sorted(NAMES)) | st.text(max_size=30), min_size=1, max_size=64))
def test_accelerators_add_up_in_any_order(names: list[str]) -> None:
    assert weight(names) == sum(weight([one]) for one in names) == weight(names[::-1])
    assert 0 < weight(names) < 2**32
