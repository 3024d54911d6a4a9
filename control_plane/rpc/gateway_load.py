"""What gateways are told of the load on workers: all of it at once, then what changed."""

import logging
from dataclasses import dataclass

from control_plane.rpc import convert_usage
from control_plane.rpc.desk import Context
from control_plane.store import load
from control_plane.store.db import Pool, connection
from control_plane.store.load import WorkerLoad
from control_plane.store.wake import SNAPSHOT, Wake
from mesh.gateway.v1 import gateway_pb2 as pb
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.ids import GatewayId, WorkerId
from mesh.kit.logs import F

log = logging.getLogger(__name__)

POLL_S = 2.0  # counts of requests change without a hint; phases come with one
GATHER_S = 0.1  # phases that change together go out together
MAX_WORKERS = 1_000  # of one message: below a megabyte, whatever their details say


@dataclass(frozen=True, slots=True)
class LoadWatch:
    """One gateway's stream."""

    pool: Pool
    wake: Wake
    clock: Clock
    gateway_id: GatewayId

    async def push(self, context: Context) -> None:
        """Write what differs from what was written last, until cancelled. The first message comes at once."""
        told: dict[WorkerId, WorkerLoad] | None = None
        with self.wake.subscribe(SNAPSHOT) as hints:
            while True:
                try:
                    async with connection(self.pool) as db:
                        now = {one.worker_id: one for one in await load.list_(db)}
                except Unavailable as exc:  # the gateway goes on with what it has
                    log.warning("load not read", extra={F.GATEWAY: self.gateway_id, F.REASON: str(exc)})
                else:
                    changed = [one for one in now.values() if told is None or told.get(one.worker_id) != one]
                    if told is None or changed:
                        await self._tell(changed, context)
                    told = now
                if await hints.wait(POLL_S):
                    await self.clock.sleep(GATHER_S)

    async def _tell(self, changed: list[WorkerLoad], context: Context) -> None:
        """Write them all, in as many messages as it takes; one, and empty, when there are none."""
        for begin in range(0, max(len(changed), 1), MAX_WORKERS):
            some = changed[begin : begin + MAX_WORKERS]
            await context.write(pb.WatchLoadResponse(workers=[convert_usage.load(one) for one in some]))
