"""The node sessions of this process: the newest of each node lives, an older one is cut at once."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from control_plane.store import nodes
from control_plane.store.db import Pool, transaction
from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError, StaleEpoch, Unavailable
from mesh.kit.ids import NodeId
from mesh.kit.logs import F
from mesh.link.roster import Refused, Replaced, Roster

log = logging.getLogger(__name__)

_TURN_S = 0.02  # between two looks at sessions that are ending


@dataclass(slots=True, eq=False)
class NodeSession:
    """One live control stream."""

    node_id: NodeId
    epoch: int
    _why: "asyncio.Future[MeshError]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def cut(self, why: MeshError) -> None:
        """End it, from anywhere in this process."""
        if not self._why.done():
            self._why.set_result(why)

    async def until_cut(self) -> None:
        """Raise the reason as soon as there is one."""
        raise await asyncio.shield(self._why)


class Sessions:
    """Who is connected here. Another replica's sessions are fenced by the epoch in the database.

    A part: ``run`` marks the nodes offline whose sessions ended. That is not done by the handler of the stream,
    which may be cancelled again and again while it ends; what it leaves behind is one entry here.
    """

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool, self._clock = pool, clock
        self._roster: Roster[NodeSession] = Roster()
        self._ended: dict[NodeId, int] = {}  # bounded by the nodes there are: the newest epoch of each counts
        self._there = asyncio.Event()

    @contextmanager
    def admitted(self, session: NodeSession) -> Iterator[None]:
        """Hold the place of that node's session. StaleEpoch when a newer one is here already."""
        outcome = self._roster.admit(session.node_id, epoch=session.epoch, session=session)
        if isinstance(outcome, Refused):
            raise StaleEpoch(epoch=session.epoch, newest=outcome.newest)
        if isinstance(outcome, Replaced):
            outcome.old.cut(StaleEpoch(epoch=outcome.old.epoch, newest=session.epoch))
        try:
            yield
        finally:
            self._roster.release(session.node_id, session)
            self._ended[session.node_id] = max(session.epoch, self._ended.get(session.node_id, 0))
            self._there.set()

    async def run(self) -> None:
        """Mark nodes offline as their sessions end, until cancelled."""
        while True:
            await self._there.wait()
            self._there.clear()
            await self.once()

    async def once(self) -> None:
        """Mark offline whoever's session ended since the last time."""
        ended, self._ended = self._ended, {}
        try:
            async with transaction(self._pool) as db:
                for node_id, epoch in sorted(ended.items()):
                    await nodes.end_session(db, node_id, epoch, now=self._clock.now())
        except Unavailable as exc:  # the sweeper finds them silent
            log.warning("nodes not marked offline", extra={F.COUNT: len(ended), F.REASON: str(exc)})

    async def close(self, *, within_s: float) -> None:
        """Cut them all, because we stop, and mark their nodes offline, within that time."""
        for _, session in self._roster:
            session.cut(Unavailable("the control plane is stopping"))
        try:
            async with asyncio.timeout(within_s):
                while len(self._roster):
                    await self._clock.sleep(_TURN_S)
                await self.once()
        except TimeoutError:
            log.warning("sessions not ended in time", extra={F.COUNT: len(self._roster)})
