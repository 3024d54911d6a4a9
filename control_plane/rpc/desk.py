"""What every admin service works with: one transaction per call, the operator's name, and the audit row."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc

from control_plane.store import audit
from control_plane.store.db import Db, Pool, connection, transaction
from mesh.kit.clock import Clock
from mesh.kit.errors import Unavailable
from pki.peer import caller_of

UNARY_BUDGET_S = 10.0  # a few statements each; past this the database is not well and the operator should know

Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def within_budget(budget_s: float = UNARY_BUDGET_S) -> AsyncIterator[None]:
    """The time one unary call may take; Unavailable when it is over."""
    try:
        async with asyncio.timeout(budget_s):
            yield
    except TimeoutError:
        raise Unavailable(f"not done within {budget_s:.0f} seconds; the database may be away") from None


@dataclass(frozen=True, slots=True)
class Change:
    """One call that changes something, inside its transaction."""

    db: Db
    now: datetime
    actor: str

    async def audit(self, action: str, object_: str, detail: Mapping[str, object] | None = None) -> None:
        """Say who did what to which thing. Stored with the change or not at all."""
        await audit.record(
            self.db, actor=self.actor, action=action, object_=object_, detail=dict(detail or {}), at=self.now
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """The way to the database for one admin service."""

    pool: Pool
    clock: Clock

    @asynccontextmanager
    async def change(self, context: Context) -> AsyncIterator[Change]:
        """One transaction in the caller's name; leaving it without an error commits."""
        actor = str(caller_of(context.auth_context()).identity)
        async with within_budget(), transaction(self.pool) as db:
            yield Change(db, self.clock.now(), actor)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Db]:
        """A connection for questions."""
        async with within_budget(), connection(self.pool) as db:
            yield db
