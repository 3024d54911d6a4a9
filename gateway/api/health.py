"""/healthz: the process lives. /readyz: it can serve. /metrics: for Prometheus, on this machine."""

from collections.abc import Container
from dataclasses import dataclass
from ipaddress import ip_address

import orjson
from aiohttp import web

from gateway.api.metrics import Metrics
from gateway.api.visit import Visit
from gateway.control.spool import Spool
from gateway.core.errors import SpoolUnavailable, UnknownRoute
from gateway.core.snapshot import Cell
from gateway.tunnel.registry import Registry

_OF_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


@dataclass(slots=True)
class Health:
    """The handlers, and whether we are on our way out."""

    cell: Cell
    registry: Registry
    spool: Spool
    metrics: Metrics
    draining: bool = False

    async def healthz(self, visit: Visit) -> web.StreamResponse:
        """Always 200."""
        return _json(visit, 200, {"status": "ok"})

    async def readyz(self, visit: Visit) -> web.StreamResponse:
        """200, or 503 with every reason."""
        reasons = []
        if self.cell.current is None:
            reasons.append("no snapshot from the control plane yet")
        if not len(self.registry.roster):
            reasons.append("no node is attached")
        if self.draining:
            reasons.append("draining")
        try:
            self.spool.settle()
            self.spool.check()
        except SpoolUnavailable as exc:
            reasons.append(str(exc))
        if reasons:
            return _json(visit, 503, {"status": "not ready", "reasons": reasons})
        return _json(visit, 200, {"status": "ready", "nodes": len(self.registry.roster)})

    async def show_metrics(self, visit: Visit) -> web.StreamResponse:
        """The numbers. How much which model is used is not for everyone: others are told that nothing is here."""
        transport = visit.request.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        if not is_local(peer, visit.request.headers):
            raise UnknownRoute("unknown request URL: GET /metrics")
        headers = {**visit.headers, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self.metrics.text(), headers=headers)


def is_local(peer: tuple[object, ...] | None, headers: Container[str]) -> bool:
    """Whether a request was sent on this machine, and not just passed on by a proxy here."""
    try:
        address = ip_address(str(peer[0])) if peer else None
    except ValueError:
        return False
    if address is None:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback and not any(name in headers for name in _OF_PROXIES)


def _json(visit: Visit, status: int, value: object) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(value), content_type="application/json", headers=visit.headers
    )
