"""The hub's end of every tunnel: one Session per node, the newest epoch wins."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.core.snapshot import Cell, Snapshot
from gateway.tunnel.registry import Registry
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput, MeshError, PermissionDenied, StaleEpoch, Unavailable
from mesh.kit.logs import F
from mesh.link.frames import LinkError
from mesh.link.roster import Refused, Replaced
from mesh.tunnel.v1.tunnel_pb2 import AttachRequest
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceServicer
from mesh.wire.errors import LinkLost
from mesh.wire.grpc_link import ServerContext, ServerLink
from mesh.wire.session import Session
from pki.names import Kind
from pki.peer import Allowed, Caller, caller_of

log = logging.getLogger(__name__)

METHODS: Final[Mapping[str, Allowed]] = {"/mesh.tunnel.v1.TunnelService/Attach": frozenset({Kind.NODE})}

HELLO_S = 10.0  # for the first message of a stream that has just been opened
FLAPS, FLAP_WINDOW_S = 3, 60.0  # so many replacements in so long: two machines with one identity


@dataclass(slots=True)
class Acceptor(TunnelServiceServicer):
    """Serves Attach. Who may call at all is the guard's business, with ``still_allowed``."""

    registry: Registry
    cell: Cell
    hub_id: str
    clock: Clock
    attached: Callable[[], None]
    """Told when a node may be sent requests."""
    detached: Callable[[], None] = lambda: None
    """Told when a node may no longer be sent requests."""
    draining: bool = False
    _replaced: dict[str, deque[float]] = field(init=False, default_factory=dict)

    def still_allowed(self, caller: Caller) -> MeshError | None:
        """The refusal of a node that was revoked, by name or by certificate."""
        return _refusal(self.cell.current, caller)

    def drain(self) -> None:
        """Tell every node that no new requests come, and take no new sessions."""
        self.draining = True
        for _, session in self.registry.roster:
            session.drain()
        self.detached()

    def close(self) -> None:
        """End every session; the requests on them are lost."""
        for _, session in self.registry.roster:
            session.close("hub_ended")

    async def Attach(self, _requests: AsyncIterator[AttachRequest], context: ServerContext) -> None:
        """One node's tunnel, to its end."""
        if self.draining:
            raise Unavailable("this gateway is going away")
        node_id = caller_of(context.auth_context()).identity.id
        link = ServerLink(context)
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await link.hello()
        except TimeoutError:
            raise InvalidInput("hello", f"did not come within {HELLO_S:.0f} s") from None
        except LinkError as exc:
            raise InvalidInput("hello", "must be the first message") from exc
        except LinkLost:
            return
        session = Session(link, initiator=True, clock=self.clock)
        match self.registry.roster.admit(node_id, epoch=hello.epoch, session=session):
            case Refused(newest):
                raise StaleEpoch(epoch=hello.epoch, newest=newest)
            case Replaced(old):
                old.close("replaced")
                self._note_flap(node_id)
        log.info("node attached", extra={F.NODE: node_id, F.EPOCH: hello.epoch})
        try:
            await link.welcome(self.hub_id)
            self.attached()
            await session.run()
        except LinkLost:
            pass
        finally:
            # Only this very session: a newer one may be there already.
            self.registry.roster.release(node_id, session)
            session.close("hub_ended")
            self.detached()
            log.info("node detached", extra={F.NODE: node_id, F.EPOCH: hello.epoch, F.REASON: session.why})

    def _note_flap(self, node_id: str) -> None:
        now = self.clock.monotonic()
        times = self._replaced.setdefault(node_id, deque(maxlen=FLAPS + 1))
        times.append(now)
        if len(times) > FLAPS and now - times[0] < FLAP_WINDOW_S:
            log.warning("node flaps; is its identity in use twice?", extra={F.NODE: node_id, F.COUNT: len(times)})


def _refusal(snapshot: Snapshot | None, caller: Caller) -> MeshError | None:
    if snapshot is None:
        return None  # nobody is known to be revoked; certificates still end by themselves
    revoked = snapshot.revoked
    if caller.identity.id in revoked or caller.serial_hex in revoked:
        return PermissionDenied("node_revoked", "this node was revoked")
    return None
