"""Places deployments on nodes: fleet + models → assignments.

Safe in every replica: load, decide and apply are one transaction under a lock in the database, and placing what
is placed already changes nothing. Absence is counted from our own start at the earliest: while no control plane
ran, every node was away, and the first one back must not inherit the workers of all others.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from control_plane.core.placement import place
from control_plane.store import assignments, deployments, models, nodes
from control_plane.store.db import Pool, transaction
from control_plane.store.wake import PLACEMENT, Wake
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.ids import DeploymentId
from mesh.kit.logs import F

log = logging.getLogger(__name__)

POLL_S = 5.0  # a hint that was lost is made up for this late; also how late silence is noticed


@dataclass(slots=True)
class Placer:
    """The loop. ``grace`` is how long a node may be away before its workers are placed elsewhere."""

    pool: Pool
    wake: Wake
    clock: Clock
    grace: timedelta
    _began: float | None = field(init=False, default=None)
    _pending: Mapping[DeploymentId, str] = field(init=False, default_factory=dict)

    async def run(self) -> None:
        """Place after every hint and now and then, until cancelled."""
        with self.wake.subscribe(PLACEMENT) as hints:
            while True:
                try:
                    await self.once()
                except Unavailable as exc:  # nobody can place now; the rows are still there later
                    log.warning("not placed", extra={F.REASON: str(exc)})
                    self._began = None
                await hints.wait(POLL_S)

    async def once(self) -> None:
        """One round."""
        now = self.clock.now()
        if self._began is None:
            self._began = self.clock.monotonic()
        listening = timedelta(seconds=self.clock.monotonic() - self._began)
        grace = self.grace if listening >= self.grace else timedelta.max
        async with transaction(self.pool) as db:
            await assignments.lock(db)
            plan = place(
                await nodes.list_(db),
                await deployments.list_(db),
                await models.list_(db),
                await assignments.list_(db),
                now=now,
                grace=grace,
            )
            await assignments.apply(db, plan, now=now)
        for gone in plan.release:
            log.info("worker released", extra={F.WORKER: gone.worker_id, F.REASON: gone.why})
        for made in plan.assign:
            log.info("worker placed", extra={F.DEPLOYMENT: made.deployment_id, F.NODE: made.node_id})
        for deployment_id, why in plan.pending.items():
            if self._pending.get(deployment_id) != why:
                log.info("deployment pending", extra={F.DEPLOYMENT: deployment_id, F.REASON: why})
        self._pending = dict(plan.pending)
