"""The accepting end between gateways: passes each stream on to the node that is attached here, to nobody else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.core.snapshot import Cell
from gateway.tunnel.registry import Registry
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, MeshError, PermissionDenied, Unavailable
from mesh.kit.logs import F
from mesh.link.frames import LinkError, ResetCode
from mesh.tunnel.v1.peer_pb2 import ConnectRequest
from mesh.tunnel.v1.peer_pb2_grpc import PeerServiceServicer
from mesh.wire.errors import LinkLost, SessionDraining, StreamReset, TooManyStreams
from mesh.wire.peer_link import AcceptingLink, PeerContext
from mesh.wire.session import Session
from mesh.wire.stream import Stream
from pki.names import Kind
from pki.peer import Allowed, Caller, caller_of

log = logging.getLogger(__name__)

METHODS: Final[Mapping[str, Allowed]] = {"/mesh.tunnel.v1.PeerService/Connect": frozenset({Kind.GATEWAY})}

HELLO_S = 10.0  # for the first message of a stream that has just been opened
LOOK_S = 1.0  # a node may say by itself that it takes no more; nobody tells us, so we look


@dataclass(slots=True)
class PeerService(PeerServiceServicer):
    """Serves Connect. Who may call at all is the guard's business, with ``still_allowed``."""

    registry: Registry
    cell: Cell
    hub_id: str
    clock: Clock
    draining: bool = False
    _sessions: set[Session] = field(init=False, default_factory=set)
    _changes: set[asyncio.Event] = field(init=False, default_factory=set)

    @property
    def streams(self) -> int:
        """Requests that are being passed on."""
        return sum(session.live for session in self._sessions)

    def still_allowed(self, caller: Caller) -> MeshError | None:
        """The refusal of a gateway whose certificate was revoked."""
        snapshot = self.cell.current
        if snapshot is not None and caller.serial_hex in snapshot.revoked:
            return PermissionDenied("gateway_revoked", "this gateway's certificate was revoked")
        return None

    def nodes_changed(self) -> None:
        """A node came, went, or takes no more requests: every peer is told at once."""
        for event in self._changes:
            event.set()

    def drain(self) -> None:
        """Pass nothing new on, and take no new peers; what is under way goes on."""
        self.draining = True
        self.nodes_changed()
        for session in self._sessions:
            session.drain()

    async def idle(self) -> None:
        """Wait until nothing is passed on any more."""
        for session in list(self._sessions):
            await session.idle()

    def close(self) -> None:
        """End every link; the requests on them are lost."""
        for session in list(self._sessions):
            session.close("hub_ended")

    async def Connect(  # noqa: N802  # as in the schema
        self, _requests: AsyncIterator[ConnectRequest], context: PeerContext
    ) -> None:
        """One peer's link, to its end."""
        if self.draining:
            raise Unavailable("this gateway is going away")
        link = AcceptingLink(context)
        try:
            async with asyncio.timeout(HELLO_S):
                hub_id = await link.hello()
        except TimeoutError:
            raise InvalidInput("hello", f"did not come within {HELLO_S:.0f} s") from None
        except LinkError as exc:
            raise InvalidInput("hello", "must be the first message") from exc
        except LinkLost:
            return
        caller = caller_of(context.auth_context()).identity.id
        if hub_id.partition("~")[0] != caller:
            raise PermissionDenied("wrong_hub", f"{caller} is not the hub {hub_id[:100]!r}")
        try:
            await link.welcome(self.hub_id)
        except LinkLost:
            return
        log.info("peer attached", extra={F.HUB: hub_id})
        why = await self._serve(link)
        log.info("peer detached", extra={F.HUB: hub_id, F.REASON: why})

    async def _serve(self, link: AcceptingLink) -> str:
        """Pass streams on until the link is over; says why it is."""
        changed = asyncio.Event()
        async with asyncio.TaskGroup() as group:

            def opened(stream: Stream) -> None:
                group.create_task(self._relay(stream))

            session = Session(link, initiator=False, clock=self.clock, on_open=opened)
            if self.draining:  # while it said hello
                session.drain()
            self._sessions.add(session)
            self._changes.add(changed)
            telling = [group.create_task(self._tell(link, changed)), group.create_task(self._look(changed))]
            try:
                await session.run()
            finally:
                self._sessions.discard(session)
                self._changes.discard(changed)
                for task in telling:
                    task.cancel()
        return session.why

    async def _tell(self, link: AcceptingLink, changed: asyncio.Event) -> None:
        """Say who is attached, at once and after every change."""
        told: list[str] | None = None
        try:
            while True:
                changed.clear()
                nodes = [] if self.draining else sorted(self.registry.attached())
                if nodes != told:
                    await link.tell_nodes(nodes)
                    told = nodes
                    continue  # it took a while; see whether it still holds
                await changed.wait()
        except LinkLost:
            pass  # the session learns of it too

    async def _look(self, changed: asyncio.Event) -> None:
        while True:
            await self.clock.sleep(LOOK_S)
            changed.set()

    async def _relay(self, asked: Stream) -> None:
        """One request of a peer, through a stream of the node. Whatever happens, both are over in the end."""
        # Only nodes that are attached here: what would have to go through a third gateway comes back instead.
        session = self.registry.roster.get(asked.request.node_id)
        if session is None or self.draining:
            asked.reset(ResetCode.WORKER_UNKNOWN if session is None else ResetCode.DRAINING)
            return
        try:
            passed = session.open(asked.request)
        except SessionDraining:
            return asked.reset(ResetCode.DRAINING)
        except TooManyStreams:
            return asked.reset(ResetCode.TOO_MANY)
        except MeshError:  # the link ended a moment ago, or the request is too long for it
            return asked.reset(ResetCode.WORKER_UNKNOWN)
        try:
            asked.when_cut_off(lambda _code: passed.reset(ResetCode.CANCEL))
            passed.when_cut_off(lambda code: asked.reset(_told(code)))
            async with asyncio.TaskGroup() as group:
                group.create_task(_copied(asked, passed))
                await _answered(passed, asked)
        except Exception:  # edge: one request that goes wrong must not end the link of all
            log.exception("request not passed on", extra={F.REQUEST: asked.request.request_id})
        finally:
            passed.reset(ResetCode.CANCEL)
            asked.reset(ResetCode.UPSTREAM_FAILED)


async def _copied(source: Stream, sink: Stream) -> None:
    """All octets of one direction, and its end. Nothing is read before what was read is taken."""
    try:
        while chunks := await source.read_chunks():
            for chunk in chunks:
                await sink.write(chunk)
        sink.end()
    except StreamReset:
        pass  # the other stream was reset in the same moment


async def _answered(source: Stream, sink: Stream) -> None:
    try:
        sink.respond(await source.head())
    except StreamReset:
        return
    await _copied(source, sink)


def _told(code: ResetCode) -> ResetCode:
    """What the peer is told when the node's stream was cut off for that."""
    # A lost link is what a side tells itself and never sends. To the peer it means: the node is not here any more.
    return ResetCode.WORKER_UNKNOWN if code is ResetCode.LINK_LOST else code
