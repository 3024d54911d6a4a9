"""/healthz: the process lives. /readyz: it can serve. /metrics: for Prometheus, on this machine."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from ipaddress import ip_address

import orjson

from gateway.api.metrics import Metrics
from gateway.api.siblings import Siblings
from gateway.api.visit import Visit
from gateway.control.spool import Spool
from gateway.core.errors import SpoolUnavailable, UnknownRoute
from gateway.core.snapshot import Cell
from gateway.tunnel.registry import Registry

_OF_PROXIES = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


@dataclass(slots=True)
class Health:
    """The handlers."""

    cell: Cell
    registry: Registry
    spool: Spool
    metrics: Metrics
    draining: Callable[[], bool]
    siblings: Siblings | None = None
    """Where this gateway is several processes."""

    async def healthz(self, visit: Visit) -> None:
        """Always 200."""
        _json(visit, 200, {"status": "ok"})

    async def readyz(self, visit: Visit) -> None:
        """200, or 503 with every reason."""
        reasons = []
        if self.cell.current is None:
            reasons.append("no snapshot from the control plane yet")
        if not len(self.registry.roster) and not self.registry.through:
            reasons.append("no node is attached")
        if self.draining():
            reasons.append("draining")
        try:
            self.spool.settle()
            self.spool.check()
        except SpoolUnavailable as exc:
            reasons.append(str(exc))
        if reasons:
            _json(visit, 503, {"status": "not ready", "reasons": reasons})
            return
        _json(visit, 200, {"status": "ready", "nodes": len(self.registry.roster)})

    async def show_metrics(self, visit: Visit) -> None:
        """The numbers. How much which model is used is not for everyone: others are told that nothing is here."""
        if not is_local(visit.request.connection.peer, visit.request.headers):
            raise UnknownRoute("unknown request URL: GET /metrics")
        page = self.metrics.text() if self.siblings is None else await self.siblings.page()
        visit.answer(200, page, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def show_routes(self, visit: Visit) -> None:
        """The flight recorder, as lines of JSON; ``meshctl route replay`` reads them."""
        if not is_local(visit.request.connection.peer, visit.request.headers):
            raise UnknownRoute("unknown request URL: GET /debug/routes")
        lines = b"".join(orjson.dumps(row) + b"\n" for row in self.registry.recorder.dump())
        visit.answer(200, lines, {"Content-Type": "application/x-ndjson"})


def is_local(peer: tuple[object, ...] | None, headers: Container[bytes]) -> bool:
    """Whether a request was sent on this machine, and not just passed on by a proxy here."""
    try:
        address = ip_address(str(peer[0])) if peer else None
    except ValueError:
        return False
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback and not any(name in headers for name in _OF_PROXIES)


def _json(visit: Visit, status: int, value: object) -> None:
    visit.answer(status, orjson.dumps(value))
