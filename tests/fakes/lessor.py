"""Grants shares of limits to several gateways as the control plane promises to: never more than there is."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.control.quota import Lease
from gateway.core.limits import Ask, Grant
from gateway.core.snapshot import Limits
from gateway.core.windows import Kind
from mesh.kit.errors import Unavailable
from tests.fakes.clock import FakeClock

LEASE_S = 15.0
Place = tuple[str, Kind, int]


@dataclass(slots=True)
class FakeLessor:
    """``limits`` by subject. ``down``: nobody answers. ``gate``: calls wait while it is not set."""

    clock: FakeClock
    limits: Mapping[str, Limits]
    down: bool = False
    calls: list[list[Ask]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _held: dict[Place, dict[str, tuple[int, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def lease(self, gateway: str) -> Lease:
        """What that gateway calls."""

        async def ask(asks: list[Ask]) -> list[Grant]:
            self.calls.append(asks)
            await asyncio.sleep(0)
            await self.gate.wait()
            if self.down:
                raise Unavailable("the control plane is away")
            return [self._grant(gateway, one) for one in asks]

        return ask

    def held(self, place: Place) -> dict[str, int]:
        """Shares, by gateway."""
        now = self.clock.monotonic()
        held = self._held.get(place, {})
        return {gateway: share for gateway, (share, until) in held.items() if until > now and share}

    def _grant(self, gateway: str, ask: Ask) -> Grant:
        place = ask.subject, ask.kind, ask.window
        limit = getattr(self.limits[ask.subject], ask.kind)
        others = sum(share for other, share in self.held(place).items() if other != gateway)
        granted = max(ask.used, min(ask.wanted, limit - others))
        running = ask.kind is Kind.CONCURRENT_REQUESTS
        until = self.clock.monotonic() + LEASE_S if running else float("inf")
        self._held.setdefault(place, {})[gateway] = granted, until
        return Grant(granted, max(0, limit - others - granted), int(LEASE_S * 1000) if running else 0)
