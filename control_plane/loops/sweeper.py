"""Tidies what nobody was there to tidy: nodes and gateways that fell silent without a goodbye, old certificates,
revoked nodes, windows of limits that ended, demand that nobody reports any more.

A session marks its own node offline when it ends; this loop does it where the process that held the session was
killed. Silence is counted from our own start at the earliest: while no control plane ran, nobody could be heard.
"""

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from control_plane.store import certificates, demand, gateways, nodes, quota
from control_plane.store.db import Pool, transaction
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from mesh.kit.logs import F
from pki.policy import MAX_LEAF_LIFETIME

log = logging.getLogger(__name__)

ROUND_S = 5.0  # how late silence is noticed
HUB_GRACE = timedelta(minutes=10)  # agents keep dialling a gateway that restarts; one that is gone is forgotten
# A revoked node is named to gateways until no certificate of it can be good by any clock. Longer than any leaf
# lives, so that whatever was signed outside our books has ended too.
REVOKED_GRACE = MAX_LEAF_LIFETIME + timedelta(days=1)
CERTIFICATE_GRACE = timedelta(days=1)  # expired ones are kept this long, for whoever reads the audit log


@dataclass(slots=True)
class Sweeper:
    """The loop. ``grace`` is the silence after which a node counts as lost."""

    pool: Pool
    clock: Clock
    grace: timedelta
    _began: float | None = field(init=False, default=None)

    async def run(self) -> None:
        """Sweep every few seconds, until cancelled."""
        while True:
            try:
                await self.once()
            except Unavailable as exc:
                log.warning("not swept", extra={F.REASON: str(exc)})
                self.interrupted()
            await self.clock.sleep(ROUND_S)

    def interrupted(self) -> None:
        """The database was away: what could not be stored was not heard, so silence is counted afresh."""
        self._began = None

    async def once(self) -> None:
        """One round. Each duty is a transaction of its own: together they would take locks out of order."""
        now = self.clock.now()
        if self._began is None:
            self._began = self.clock.monotonic()
        listening = timedelta(seconds=self.clock.monotonic() - self._began)
        if listening >= self.grace:
            async with transaction(self.pool) as db:
                silent = await nodes.expire_silent(db, seen_before=now - self.grace)
            for node_id in silent:
                log.warning("node fell silent", extra={F.NODE: node_id})
        if listening >= HUB_GRACE:
            async with transaction(self.pool) as db:
                forgotten = await gateways.delete_silent(db, seen_before=now - HUB_GRACE)
            for gateway_id in forgotten:
                log.warning("gateway forgotten", extra={F.GATEWAY: gateway_id})
        async with transaction(self.pool) as db:
            await certificates.delete_expired(db, before=now - CERTIFICATE_GRACE)
        async with transaction(self.pool) as db:
            gone = await nodes.delete_revoked(db, expired_before=now - REVOKED_GRACE)
        for node_id in gone:
            log.info("revoked node forgotten", extra={F.NODE: node_id})
        async with transaction(self.pool) as db:
            await quota.delete_ended(db, now=now)
        async with transaction(self.pool) as db:
            await demand.delete_old(db, now=now)
