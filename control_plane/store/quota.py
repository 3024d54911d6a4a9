"""Questions about shares of limits. Every window has a row that is locked before its shares are read or changed.

So grants are exact, however many gateways ask however many replicas at once: one after another they see what the
one before was given.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from control_plane.core.quota import KEPT, Ask, Grant, QuotaKind, Window, check_asks, divide, end, is_over
from control_plane.store import limits
from control_plane.store.db import Db

_BATCH = 5_000  # windows deleted at once: a round of the sweeper stays short

_LIMITS = f"""
SELECT key_id AS subject, {limits.COLUMNS} FROM api_keys WHERE key_id = ANY($1::text[])
UNION ALL
SELECT project_id, {limits.COLUMNS} FROM projects WHERE project_id = ANY($1::text[])
"""  # noqa: S608 - names of columns, all ours
# In one order, so that calls wait for each other instead of deadlocking. An update, because only that locks a row
# which another transaction has just inserted.
_LOCK = """
INSERT INTO quota_windows (subject, kind, window_start, ends_at)
SELECT subject, kind, window_start, ends_at
  FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[]) AS w (subject, kind, window_start, ends_at)
 ORDER BY subject, kind, window_start
    ON CONFLICT (subject, kind, window_start) DO UPDATE
   SET ends_at = GREATEST(quota_windows.ends_at, excluded.ends_at)
"""
_SHARES = """
SELECT s.subject, s.kind, s.window_start, s.hub_id, s.granted
  FROM quota_shares AS s
  JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS w (subject, kind, window_start)
 USING (subject, kind, window_start)
"""
_KEEP = """
INSERT INTO quota_shares (subject, kind, window_start, hub_id, granted, expires_at)
SELECT subject, kind, window_start, $6, granted, expires_at
  FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[])
       AS w (subject, kind, window_start, granted, expires_at)
    ON CONFLICT (subject, kind, window_start, hub_id) DO UPDATE
   SET granted = excluded.granted, expires_at = excluded.expires_at
"""
# Of gateways that are gone, where others go on asking.
_DELETE_EXPIRED = """
DELETE FROM quota_shares AS s
 USING unnest($1::text[], $2::text[], $3::bigint[]) AS w (subject, kind, window_start)
 WHERE (s.subject, s.kind, s.window_start) = (w.subject, w.kind, w.window_start) AND s.expires_at <= $4
"""
_DELETE_ENDED = """
DELETE FROM quota_windows
 WHERE (subject, kind, window_start) IN (
       SELECT subject, kind, window_start FROM quota_windows
        WHERE ends_at < $1
        ORDER BY ends_at
        LIMIT $2
          FOR UPDATE SKIP LOCKED)
"""


async def lease(db: Db, asks: Sequence[Ask], *, hub_id: str, now: datetime) -> list[Grant]:
    """Answer the asks, in their order, and keep what is granted. Call it in a transaction.

    A limit is the subject's as it is now; who has none, or is not known, gets what is wanted. Of a window that is
    long over, a gateway keeps what it used and nothing is stored. InvalidInput refuses all asks.
    """
    check_asks(asks, now=now)
    bounds = await _limits(db, {ask.window for ask in asks})
    over = {window for window in bounds if is_over(window, now=now)}
    running = [window for window in bounds if window not in over]
    await _lock(db, running, now)
    bounds.update(dict.fromkeys(over, 0))
    grants, held = divide(asks, bounds, await _shares(db, running, now), hub_id)
    await _keep(db, {window: held[window] for window in running}, hub_id, now)
    return grants


async def delete_ended(db: Db, *, now: datetime) -> int:
    """Forget windows that can no longer be asked for, and all shares of them; return how many they were."""
    done = await db.execute(_DELETE_ENDED, now - KEPT, _BATCH)
    return int(done.removeprefix("DELETE "))


async def _limits(db: Db, windows: set[Window]) -> dict[Window, int]:
    """The limits of those windows that have one."""
    rows = {row["subject"]: row for row in await db.fetch(_LIMITS, sorted({one.subject for one in windows}))}
    found = {}
    for window in windows:
        row = rows.get(window.subject)
        if row is not None and row[window.kind] is not None:
            found[window] = row[window.kind]
    return found


async def _lock(db: Db, windows: Sequence[Window], now: datetime) -> None:
    if windows:
        await db.execute(_LOCK, *_columns(windows), [end(one, now=now) for one in windows])


async def _shares(db: Db, windows: Sequence[Window], now: datetime) -> dict[Window, dict[str, int]]:
    """What every gateway holds of them now. The windows must be locked."""
    if not windows:
        return {}
    if at_once := [one for one in windows if one.kind is QuotaKind.CONCURRENT_REQUESTS]:
        await db.execute(_DELETE_EXPIRED, *_columns(at_once), now)
    found: dict[Window, dict[str, int]] = {}
    for row in await db.fetch(_SHARES, *_columns(windows)):
        window = Window(row["subject"], QuotaKind(row["kind"]), row["window_start"])
        found.setdefault(window, {})[row["hub_id"]] = row["granted"]
    return found


async def _keep(db: Db, held: dict[Window, int], hub_id: str, now: datetime) -> None:
    if not held:
        return
    windows = list(held)
    expiries = [end(one, now=now) if one.kind is QuotaKind.CONCURRENT_REQUESTS else None for one in windows]
    await db.execute(_KEEP, *_columns(windows), list(held.values()), expiries, hub_id)


def _columns(windows: Iterable[Window]) -> tuple[list[str], list[str], list[int]]:
    listed = list(windows)
    return [one.subject for one in listed], [one.kind.value for one in listed], [one.start for one in listed]
