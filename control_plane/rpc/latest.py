"""A mailbox that holds one thing: the newest. A slow reader misses what was overtaken, and nothing piles up."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Whole states replace each other, so only the last one put is worth taking."""

    def __init__(self) -> None:
        self._value: T | None = None
        self._there = asyncio.Event()

    def put(self, value: T) -> None:
        """Replace what is in it."""
        self._value = value
        self._there.set()

    async def take(self) -> T:
        """Empty it; waits while there is nothing."""
        await self._there.wait()
        self._there.clear()
        assert self._value is not None
        return self._value
