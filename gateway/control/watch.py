"""Snapshots from the control plane. The last one is kept on disk, so that its absence hurts nobody."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.message import DecodeError

from gateway.control import convert
from gateway.control.link import ControlPlane, ControlPlaneLost, calling
from gateway.core.snapshot import Cell
from mesh.gateway.v1.gateway_pb2 import Snapshot, WatchSnapshotRequest
from mesh.kit.backoff import Backoff
from mesh.kit.clock import Clock
from mesh.kit.logs import F
from pki.files import write_private

log = logging.getLogger(__name__)

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@dataclass(slots=True, kw_only=True)
class SnapshotWatch:
    """Keeps the cell at the control plane's newest snapshot. A part."""

    cell: Cell
    control_plane: ControlPlane
    kept: Path
    """Where the last snapshot lies; it holds the key pepper, so nobody else may read it."""
    tunnel_endpoint: str
    version: str
    process: int
    clock: Clock
    peer_endpoint: str = ""
    """Where other gateways reach us; empty: nowhere."""
    _unkept: bytes = field(init=False, default=b"")
    """The newest snapshot, until it lies on disk; older ones that were not written yet need not be."""
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def run(self) -> None:
        """Watch, and watch again whenever that ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep())
            async for _ in Backoff(self.clock, cap_s=5.0).attempts():
                await self.once()

    async def once(self) -> None:
        """One watch, until it ends."""
        request = WatchSnapshotRequest(
            tunnel_endpoint=self.tunnel_endpoint,
            version=self.version,
            process=self.process,
            peer_endpoint=self.peer_endpoint,
        )
        try:
            with calling():
                async for response in self.control_plane.stub.WatchSnapshot(request):
                    self._take(response.snapshot)
            log.info("control plane ended the watch")
        except ControlPlaneLost as exc:
            level = logging.ERROR if exc.status in _REFUSED else logging.WARNING
            log.log(level, "control plane lost", extra={F.REASON: str(exc)})

    def _take(self, message: Snapshot) -> None:
        snapshot = convert.snapshot(message)
        self.cell.replace(snapshot)
        self._unkept = message.SerializeToString()
        self._changed.set()
        log.info("snapshot in force", extra={F.REVISION: snapshot.revision, F.COUNT: len(snapshot.models)})

    async def _keep(self) -> None:
        """Writes beside the watch: a slow disk must not hold up a revocation."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(write_private, self.kept, self._unkept)
            except OSError as exc:  # a full disk: we go on with what is in memory
                log.error("snapshot not kept", extra={F.REASON: exc.strerror, F.PATH: str(self.kept)})


def load_kept(kept: Path, cell: Cell) -> bool:
    """Put the snapshot of an earlier run in force; False when there is none that can be read."""
    try:
        snapshot = convert.snapshot(Snapshot.FromString(kept.read_bytes()))
    except FileNotFoundError:
        return False
    except (OSError, DecodeError, ValueError) as exc:
        log.error("kept snapshot unreadable", extra={F.REASON: str(exc), F.PATH: str(kept)})
        return False
    cell.replace(snapshot)
    log.info("snapshot of an earlier run in force", extra={F.REVISION: snapshot.revision})
    return True
