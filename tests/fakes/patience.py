"""Waiting for something to become true, with a bound: for tests with real processes."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], T | None], *, within_s: float = 20.0) -> T:
    """The first answer that is neither None nor False; AssertionError after the bound."""
    deadline = time.monotonic() + within_s
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.01)
