"""What the spine's control plane grants of limits: exactly what there is, as the real one promises."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.clock import Clock

LEASE_S: Final = 15.0
Place = tuple[str, int, int]


@dataclass(slots=True)
class Shares:
    """``limits`` by subject, each a mapping of the names in ``Limits``."""

    limits: Mapping[str, Mapping[str, int]]
    clock: Clock
    _held: dict[Place, dict[str, tuple[int, float]]] = field(default_factory=dict)

    def grant(self, holder: str, ask: pb.QuotaAsk) -> pb.QuotaGrant:
        """The holder's whole share from now on; nothing of a limit that nobody set."""
        name = pb.QuotaKind.Name(ask.kind).removeprefix("QUOTA_KIND_").lower()
        limit = self.limits.get(ask.subject, {}).get(name, 0)
        now, running = self.clock.monotonic(), ask.kind == pb.QUOTA_KIND_CONCURRENT_REQUESTS
        held = self._held.setdefault((ask.subject, ask.kind, ask.window), {})
        others = sum(share for other, (share, until) in held.items() if other != holder and until > now)
        granted = max(ask.used, min(ask.wanted, limit - others))
        held[holder] = granted, now + LEASE_S if running else float("inf")
        left = max(0, limit - others - granted)
        return pb.QuotaGrant(granted=granted, left=left, lease_ms=int(LEASE_S * 1000) if running else 0)
