"""/healthz, /readyz and /metrics over plain HTTP on loopback: for supervisors, probes and Prometheus."""

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from control_plane.rpc.desk import within_budget
from control_plane.rpc.metrics import Metrics
from control_plane.store import assignments, nodes
from control_plane.store.db import Pool, connection, ping
from mesh.kit.errors import Unavailable
from mesh.kit.settings import Address

_LONGEST_S = 10.0  # a probe that takes longer to send its request or to go away is cut off
_PROBE_S = 2.0  # what a probe may wait for the database


class HealthHttp:
    """The listener. Opened before everything else, so that a supervisor sees a slow start as alive."""

    def __init__(self, listen: Address, *, metrics: Metrics) -> None:
        self._listen, self._metrics = listen, metrics
        self._pool: Pool | None = None
        self._runner: web.AppRunner | None = None

    def started(self, pool: Pool) -> None:
        """Everything is up: from now on readiness is the database's."""
        self._pool = pool

    async def start(self) -> Address:
        """Listen; return the real address. OSError when that fails."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._show_metrics)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=_LONGEST_S, handle_signals=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._listen.host, self._listen.port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        return Address(self._listen.host, self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and what is open on it."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._pool is None:
            return web.Response(status=503, text="starting\n")
        try:
            async with within_budget(_PROBE_S):
                await ping(self._pool)
        except Unavailable as exc:
            return web.Response(status=503, text=f"{exc}\n")
        return web.Response(text="ok\n")

    async def _show_metrics(self, _: web.Request) -> web.Response:
        if self._pool is not None:
            try:
                async with within_budget(_PROBE_S), connection(self._pool) as db:
                    self._metrics.fleet(await nodes.count_by_state(db), await assignments.count_by_phase(db))
                self._metrics.database_up(up=True)
            except Unavailable:
                self._metrics.database_up(up=False)
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
