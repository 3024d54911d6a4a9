"""Keeps a link to every other gateway, so that requests reach nodes that are attached there and not here.

A peer says which nodes it has; ``Registry.through`` is what all of them say together. A node that several peers
have is reached through one of them, which its id decides: peers share that work.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import grpc

from gateway.core.snapshot import Peer, Snapshot
from gateway.tunnel.registry import Registry
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError, Unavailable
from mesh.kit.logs import F
from mesh.link.frames import LinkError
from mesh.tunnel.v1.peer_pb2_grpc import PeerServiceStub
from mesh.wire.channel import DATA_CHANNEL_OPTIONS, secure_channel
from mesh.wire.errors import LinkLost
from mesh.wire.peer_link import DiallingLink, PeerCall
from mesh.wire.session import Session
from pki.peer import reason_of
from pki.tls import channel_credentials, load_tls

log = logging.getLogger(__name__)

CONNECT_S = 10.0  # for TCP, TLS, hello and welcome together
FIRST_DELAY_S = 0.5
CAP_S = 5.0
LEAVE_S = 30.0  # what goes through a peer that left the snapshot may go on this long
CLOSED_WITHIN_S = 2.0  # after the grace, for saying goodbye


@dataclass(slots=True, eq=False)
class PeerLink:
    """One peer: connect, hear of its nodes, connect again. A part."""

    peer: Peer
    hub_id: str
    tls_dir: Path
    clock: Clock
    changed: Callable[[], None]
    """Told when there is something new to see here."""
    session: Session | None = field(init=False, default=None)
    nodes: frozenset[str] = field(init=False, default=frozenset())
    _leaving: bool = field(init=False, default=False)

    async def run(self) -> None:
        """Until cancelled, or until the peer was left."""
        said = ""
        async for _ in Backoff(self.clock, first_s=FIRST_DELAY_S, cap_s=CAP_S).attempts():
            if self._leaving:
                return
            why = await self._connected()
            facts: dict[str, object] = {F.HUB: self.peer.hub_id, F.ADDRESS: self.peer.endpoint, F.REASON: why}
            if self._leaving:
                log.info("peer left", extra=facts)
                return
            # A gateway that was taken away is asked until the control plane has noticed; one line is enough.
            log.log(logging.DEBUG if why == said else logging.WARNING, "peer cannot be reached", extra=facts)
            said = why

    async def leave(self, grace_s: float) -> None:
        """Send nothing new there; close when what is open has ended, at the latest after the grace."""
        self._leaving = True
        session = self.session
        if session is None:
            return
        session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await session.idle()
        session.close("left")

    async def _connected(self) -> str:
        """One link, to its end; says how it ended."""
        try:
            return await self._connect()
        except LinkLost as exc:
            cause = exc.__cause__
            return (reason_of(cause) if isinstance(cause, grpc.aio.AioRpcError) else "") or str(exc)
        except TimeoutError:
            return "no answer"
        except (MeshError, LinkError, OSError, ValueError) as exc:
            return str(exc)
        except Exception as exc:  # edge: one peer must not end the others
            log.exception("link to a peer failed", extra={F.HUB: self.peer.hub_id})
            return f"unexpected: {type(exc).__name__}"
        finally:
            self.session, self.nodes = None, frozenset()
            self.changed()

    async def _connect(self) -> str:
        files = load_tls(self.tls_dir)  # anew each time: it may have been replaced
        credentials = channel_credentials(files.trust_bundle_pem, key_pem=files.key_pem, chain_pem=files.chain_pem)
        async with secure_channel(
            self.peer.endpoint, credentials, server_name=self.peer.server_name, options=DATA_CHANNEL_OPTIONS
        ) as channel:
            call: PeerCall = PeerServiceStub(channel).Connect()
            link = DiallingLink(call, self._hear)
            async with asyncio.timeout(CONNECT_S):
                hub_id = await link.greet(self.hub_id)
            if hub_id != self.peer.hub_id:
                raise Unavailable(f"another gateway answers there: {hub_id[:100]}")
            session = self.session = Session(link, initiator=True, clock=self.clock)
            if self._leaving:  # while we dialled
                session.drain()
            log.info("peer connected", extra={F.HUB: hub_id, F.ADDRESS: self.peer.endpoint})
            try:
                await session.run()
            finally:
                call.cancel()
            return session.why

    def _hear(self, nodes: frozenset[str]) -> None:
        self.nodes = nodes
        self.changed()


@dataclass(slots=True)
class Peers:
    """All links. A part: ``follow`` says to whom there should be one, ``run`` sees to it."""

    hub_id: str
    """Our own: no link to ourselves."""
    tls_dir: Path
    registry: Registry
    clock: Clock
    changed: Callable[[], None]
    """Told when nodes have become reachable, or are no longer."""
    _wanted: tuple[Peer, ...] = field(init=False, default=())
    _told: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _links: dict[Peer, PeerLink] = field(init=False, default_factory=dict)

    @property
    def up(self) -> int:
        """Peers that can be sent requests now."""
        return sum(_is_up(link) for link in self._links.values())

    def follow(self, snapshot: Snapshot) -> None:
        """A new snapshot is in force: these peers from now on, and no other."""
        wanted = tuple(one for one in snapshot.peers if one.endpoint and one.hub_id != self.hub_id)
        if wanted != self._wanted:
            self._wanted = wanted
            self._told.set()

    def close(self) -> None:
        """End every link; our requests on them are lost."""
        for link in self._links.values():
            if link.session is not None:
                link.session.close("hub_ended")

    async def run(self) -> None:
        """Until cancelled."""
        tasks: dict[Peer, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._told.clear()
                    wanted = frozenset(self._wanted)
                    for peer in self._links.keys() - wanted:
                        group.create_task(self._left(self._links.pop(peer), tasks.pop(peer)))
                    for peer in wanted - self._links.keys():
                        link = PeerLink(peer, self.hub_id, self.tls_dir, self.clock, self._rebuild)
                        self._links[peer] = link
                        tasks[peer] = group.create_task(link.run())
                    self._rebuild()
                    await self._told.wait()
        finally:
            self._links.clear()
            self._rebuild()

    async def _left(self, link: PeerLink, task: "asyncio.Task[None]") -> None:
        await link.leave(LEAVE_S)
        await asyncio.wait([task], timeout=CLOSED_WITHIN_S)
        task.cancel()

    def _rebuild(self) -> None:
        """Through whom each node is reached: new when something changed, so that nobody asks twice per request."""
        ways: dict[str, list[Session]] = {}
        for link in sorted(self._links.values(), key=lambda one: one.peer.hub_id):
            if link.session is not None:
                for node_id in link.nodes:
                    ways.setdefault(node_id, []).append(link.session)
        self.registry.through = {node: some[crc32(node.encode()) % len(some)] for node, some in ways.items()}
        self.changed()


def _is_up(link: PeerLink) -> bool:
    return link.session is not None and not (link.session.closed or link.session.draining)
