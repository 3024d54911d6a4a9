"""Keeps one tunnel to each hub in desired state, and to nobody else.

Each tunnel has its own TCP connection. A hub that restarts is back within seconds: every attempt uses a fresh
channel, so that gRPC's own back-off has nothing to remember. A hub that left desired state is told to open
nothing more; what it has open may end within a grace.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import grpc

from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError, Unavailable
from mesh.kit.logs import F
from mesh.link.frames import LinkError
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceStub
from mesh.wire.channel import DATA_CHANNEL_OPTIONS, secure_channel
from mesh.wire.errors import LinkLost
from mesh.wire.grpc_link import ClientCall, ClientLink
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from node_agent.core.desired import Hub
from node_agent.disk import Disk
from pki.peer import REASON_KEY, reason_of
from pki.tls import channel_credentials, load_tls

log = logging.getLogger(__name__)

ATTACH_S = 10.0  # for TCP, TLS, Hello and Welcome together
FIRST_DELAY_S = 0.5
CAP_S = 5.0  # a hub that is away is asked this often; that is nothing to it, and it is routable again soon
LEAVE_S = 30.0  # what a hub that we leave has open may go on this long
CLOSED_WITHIN_S = 2.0  # after the grace, for saying goodbye


@dataclass(slots=True, eq=False)
class Tunnel:
    """One hub: attach, serve, attach again. A part."""

    hub: Hub
    disk: Disk
    clock: Clock
    epoch: Callable[[], int]
    on_open: Callable[[Stream], None]
    _session: Session | None = field(init=False, default=None)
    _leaving: bool = field(init=False, default=False)

    @property
    def up(self) -> bool:
        """Whether requests can come."""
        return self._session is not None and not self._session.draining

    @property
    def live(self) -> int:
        """Requests that are open."""
        return 0 if self._session is None else self._session.live

    async def run(self) -> None:
        """Until cancelled, or until the hub was left."""
        async for _ in Backoff(self.clock, first_s=FIRST_DELAY_S, cap_s=CAP_S).attempts():
            if self._leaving:
                return
            why = await self._attached()
            facts: dict[str, object] = {F.HUB: self.hub.hub_id, F.ADDRESS: self.hub.endpoint, F.REASON: why}
            if self._leaving:
                log.info("hub left", extra=facts)
                return
            log.warning("tunnel down", extra=facts)

    async def leave(self, grace_s: float) -> None:
        """Take nothing new; close when what is open has ended, at the latest after the grace."""
        self._leaving = True
        session = self._session
        if session is None:
            return
        session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await session.idle()
        session.close("left")

    async def _attached(self) -> str:
        """One tunnel, to its end; says how it ended."""
        try:
            return await self._attach()
        except LinkLost as exc:
            cause = exc.__cause__
            return (reason_of(cause) if isinstance(cause, grpc.aio.AioRpcError) else "") or str(exc)
        except TimeoutError:
            return "no answer"
        except (MeshError, LinkError, OSError, ValueError) as exc:
            return str(exc)
        except Exception as exc:  # edge: one tunnel must not end the others
            log.exception("tunnel failed", extra={F.HUB: self.hub.hub_id, F.ADDRESS: self.hub.endpoint})
            return f"unexpected: {type(exc).__name__}"
        finally:
            self._session = None

    async def _attach(self) -> str:
        files = load_tls(self.disk.identity_dir)
        if self.clock.now() >= files.not_after:
            raise Unavailable(f"certificate expired at {files.not_after:%Y-%m-%d %H:%M} UTC; enroll again")
        credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
        async with secure_channel(
            self.hub.endpoint, credentials, server_name=self.hub.server_name, options=DATA_CHANNEL_OPTIONS
        ) as channel:
            call: ClientCall = TunnelServiceStub(channel).Attach()
            link = ClientLink(call)
            epoch = self.epoch()
            async with asyncio.timeout(ATTACH_S):
                hub_id = await link.greet(epoch)
            session = self._session = Session(link, initiator=False, clock=self.clock, on_open=self.on_open)
            if self._leaving:  # while we dialled
                session.drain()
            log.info("tunnel up", extra={F.HUB: hub_id, F.ADDRESS: self.hub.endpoint, F.EPOCH: epoch})
            await session.run()
            return await _said(call) or session.why


@dataclass(slots=True, eq=False)
class Dialer:
    """All tunnels. A part: ``apply`` says which there should be, ``run`` sees to it."""

    disk: Disk
    clock: Clock
    on_open: Callable[[Stream], None]
    epoch: int = 0
    """Number of the node's session, told to hubs that are attached from now on."""

    _wanted: tuple[Hub, ...] = field(init=False, default=())
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _tunnels: dict[Hub, Tunnel] = field(init=False, default_factory=dict)

    def apply(self, hubs: Iterable[Hub]) -> None:
        """These hubs from now on, and no other."""
        self._wanted = tuple(dict.fromkeys(hubs))
        self._changed.set()

    @property
    def up(self) -> tuple[str, ...]:
        """Hubs that can send requests now."""
        return tuple(hub.hub_id for hub, tunnel in self._tunnels.items() if tunnel.up)

    async def leave(self, grace_s: float) -> None:
        """Leave every hub; return when what was open has ended, at the latest after the grace."""
        async with asyncio.TaskGroup() as group:
            for tunnel in self._tunnels.values():
                group.create_task(tunnel.leave(grace_s))

    async def run(self) -> None:
        """Until cancelled."""
        tasks: dict[Hub, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._changed.clear()
                    for hub in [hub for hub in self._tunnels if hub not in self._wanted]:
                        group.create_task(self._left(self._tunnels.pop(hub), tasks.pop(hub)))
                    for hub in self._wanted:
                        if hub not in self._tunnels:
                            tunnel = Tunnel(hub, self.disk, self.clock, lambda: self.epoch, self.on_open)
                            self._tunnels[hub] = tunnel
                            tasks[hub] = group.create_task(tunnel.run())
                    await self._changed.wait()
        finally:
            self._tunnels.clear()

    async def _left(self, tunnel: Tunnel, task: asyncio.Task[None]) -> None:
        await tunnel.leave(LEAVE_S)
        await asyncio.wait([task], timeout=CLOSED_WITHIN_S)
        task.cancel()


async def _said(call: ClientCall) -> str:
    """The reason that the hub gave for ending the call; empty when there is none, or the call goes on."""
    if not call.done():
        return ""
    value = (await call.trailing_metadata() or grpc.aio.Metadata()).get(REASON_KEY, "")
    return value if isinstance(value, str) else ""
