"""The pool, transactions, and the one place where the driver's errors become ours.

A caller borrows a connection (``connection``) or a transaction (``transaction``) and hands it to the functions of
this package. Postgres may be gone at any moment, restart, and come back: whoever asks meanwhile gets Unavailable
within the budgets below, and the pool dials again by itself.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol

import asyncpg

from mesh.kit.errors import Unavailable

ACQUIRE_S = 5.0  # waiting for a free connection: beyond it the caller should say "busy" instead
CONNECT_S = 5.0  # dialling and signing in
COMMAND_S = 10.0  # one statement; ours take milliseconds
MAX_SIZE = 10  # connections: a fifth of what the embedded server allows, so that several replicas fit

# Kept on the server's side too, so that a control plane that stopped in the middle holds no lock for long.
_SERVER_SETTINGS = {
    "application_name": "mesh-control-plane",
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
    "timezone": "UTC",
}

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.InvalidCatalogNameError,  # a database that is being restored or renamed
    asyncpg.InvalidAuthorizationSpecificationError,  # a password that is being changed
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    OSError,
    TimeoutError,
)


class Db(Protocol):
    """A connection as the functions of this package use it."""

    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Any: ...
    async def fetchval(self, query: str, *args: object, timeout: float | None = None) -> Any: ...
    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...
    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[None]: ...


class Pool(Protocol):
    """A pool of connections, as callers outside this package hold it."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Any]: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def open_pool(dsn: str, *, max_size: int = MAX_SIZE) -> Pool:
    """A pool for that database. It dials when first asked, so a database that is down fails no start."""
    pool: Pool = await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        init=_set_up,
        timeout=CONNECT_S,
        command_timeout=COMMAND_S,
        server_settings=_SERVER_SETTINGS,
    )
    return pool


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Db]:
    """A connection; every statement commits by itself."""
    with translated():
        async with pool.acquire(timeout=ACQUIRE_S) as db:
            yield db


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Db]:
    """A connection inside a transaction that commits when the block ends and rolls back when it raises."""
    with translated():
        async with pool.acquire(timeout=ACQUIRE_S) as db, db.transaction():
            yield db


async def ping(pool: Pool) -> None:
    """Raise Unavailable unless the database answers."""
    async with connection(pool) as db:
        await db.fetchval("SELECT 1")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver and the network raise when the database cannot serve us into Unavailable."""
    try:
        yield
    except asyncpg.ReadOnlySQLTransactionError as exc:
        raise Unavailable("the database is read-only") from exc
    except _GONE as exc:
        raise Unavailable(f"the database is unavailable: {_first_line(exc)}") from exc


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0] or type(exc).__name__


async def _set_up(db: Any) -> None:
    await db.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
