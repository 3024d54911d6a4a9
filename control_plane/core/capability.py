"""What a worker can do beside others of its model, from the names of its accelerators.

Decoding reads all weights for every token, so memory bandwidth is what tells cards apart. The figures are those
that makers publish, in GB/s; that number in thousandths is the weight, so that a card with 1 TB/s weighs 1.
"""

import re
from collections.abc import Iterable
from typing import Final

USUAL: Final = 1000
"""Of a worker on the CPU, and of a card that is not in the table. A model runs on the CPU or on accelerators,
never on both, so the two are not compared with each other."""

# Of a name that several variants share, the most common one.
_GB_PER_S: Final = {
    "B200": 8000,
    "MI325X": 6000,
    "MI300X": 5300,
    "H200": 4800,
    "GH200": 4000,
    "H20": 4000,
    "H100": 3350,
    "MI250X": 3277,
    "A100": 2039,
    "5090": 1792,
    "4090": 1008,
    "3090": 936,
    "A30": 933,
    "V100": 900,
    "L40S": 864,
    "L40": 864,
    "A6000": 768,
    "A40": 696,
    "A10": 600,
    "A10G": 600,
    "T4": 320,
    "L4": 300,
}
_WORD = re.compile(r"[A-Z0-9]+")


def weight(gpu_names: Iterable[str]) -> int:
    """The weight of a worker on those accelerators, in thousandths; without any, a CPU worker's."""
    return sum(map(_one, gpu_names)) or USUAL


def _one(name: str) -> int:
    words = _WORD.findall(name.upper())
    return next((_GB_PER_S[word] for word in words if word in _GB_PER_S), USUAL)
