"""How a token becomes a node, in one transaction: spend, insert, sign, record, audit.

One use of a token makes one node, however many ask at once. The same key may ask again for a while, because a
reply can be lost after the commit; it gets the same node and a new certificate. Whoever else comes with a spent
token is refused and audited: either the token leaked, or an installer ran twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

from control_plane.core.fleet import Certificate
from control_plane.store import audit, certificates
from control_plane.store.changes import placement_changed
from control_plane.store.db import Db
from mesh.kit.ids import NodeId, uuid7

RETRY_WITHIN = timedelta(minutes=10)  # how long after joining the same key may ask again

_LOCK = """
SELECT token_id, organization_id, expires_at, revoked_at
  FROM join_tokens
 WHERE token_id = $1 AND secret_mac = $2
   FOR UPDATE
"""
_FIND_JOINED = """
SELECT node_id, state, session_epoch, created_at
  FROM nodes
 WHERE join_token_id = $1 AND join_spki = $2
"""
_SPEND = """
UPDATE join_tokens
   SET uses_left = uses_left - 1, last_spki = $3
 WHERE token_id = $1 AND secret_mac = $2 AND uses_left > 0 AND revoked_at IS NULL AND expires_at > $4
RETURNING organization_id
"""
_INSERT_NODE = """
INSERT INTO nodes (node_id, organization_id, hostname, state, created_at, agent_version, join_token_id, join_spki)
VALUES ($1, $2, $3, 'joining', $4, $5, $6, $7)
"""


class Issued(Protocol):
    """What a signing authority gives, as far as we keep it."""

    @property
    def serial_hex(self) -> str: ...
    @property
    def not_after(self) -> datetime: ...


IssuedT = TypeVar("IssuedT", bound=Issued)


class Refusal(StrEnum):
    """Why a join was refused. For the log and the audit; who asked is told none of it."""

    UNKNOWN = "token_unknown"
    EXPIRED = "token_expired"
    REVOKED = "token_revoked"
    REPLAYED = "token_replay"  # spent, and this is not the key that spent it, or not in time


@dataclass(frozen=True, slots=True)
class Joined(Generic[IssuedT]):
    """A node and its certificate. ``retried``: the node was made by an earlier call of the same key."""

    node_id: NodeId
    issued: IssuedT
    retried: bool


async def join(
    db: Db,
    *,
    token_id: str,
    mac: bytes,
    spki: str,
    hostname: str,
    agent_version: str,
    address: str,
    now: datetime,
    sign: Callable[[NodeId], IssuedT],
) -> Joined[IssuedT] | Refusal:
    """Make a node of the token, or say why not. The caller commits in both cases: the refusal of a token that
    exists leaves an audit row.

    ``sign`` runs inside the transaction: when it raises, nothing was spent.
    """
    # The lock makes 200 callers with one token come one after the other; each sees what the one before did.
    token = await db.fetchrow(_LOCK, token_id, mac)
    if token is None:
        return Refusal.UNKNOWN  # anybody can invent one, so the caller decides when that is worth a row
    evidence = {"spki": spki, "hostname": hostname, "address": address, "agent_version": agent_version}

    earlier = await db.fetchrow(_FIND_JOINED, token_id, spki)
    if earlier is not None:
        if token["revoked_at"] is None and _may_retry(earlier, now):
            node_id = NodeId(earlier["node_id"])
            issued = await _issue(db, node_id, spki, sign, now)
            await _audit(db, "node_join_retried", node_id, token_id, evidence, now)
            return Joined(node_id, issued, retried=True)
        return await _refuse(db, _reason(token, now), token_id, evidence, now)

    spent = await db.fetchrow(_SPEND, token_id, mac, spki, now)
    if spent is None:
        return await _refuse(db, _reason(token, now), token_id, evidence, now)
    node_id = NodeId(uuid7(now))
    await db.execute(_INSERT_NODE, node_id, spent["organization_id"], hostname, now, agent_version, token_id, spki)
    issued = await _issue(db, node_id, spki, sign, now)
    await _audit(db, "node_joined", node_id, token_id, evidence, now)
    await placement_changed(db)
    return Joined(node_id, issued, retried=False)


async def record_unknown(db: Db, *, token_id: str, address: str, count: int, now: datetime) -> None:
    """Audit that someone at that address came with tokens nobody made, the last of them this one."""
    await audit.record(
        db,
        actor=f"address/{address}",
        action=Refusal.UNKNOWN,
        object_=f"join_token/{token_id}",
        detail={"address": address, "count": count},
        at=now,
    )


def _may_retry(node: Any, now: datetime) -> bool:
    """Only while nobody has used the identity: the first session ends the token's last right."""
    never_connected: bool = node["state"] == "joining" and node["session_epoch"] == 0
    in_time: bool = now - node["created_at"] <= RETRY_WITHIN
    return never_connected and in_time


def _reason(token: Any, now: datetime) -> Refusal:
    if token["revoked_at"] is not None:
        return Refusal.REVOKED
    return Refusal.EXPIRED if token["expires_at"] <= now else Refusal.REPLAYED


async def _issue(db: Db, node_id: NodeId, spki: str, sign: Callable[[NodeId], IssuedT], now: datetime) -> IssuedT:
    issued = sign(node_id)
    await certificates.record(db, Certificate(issued.serial_hex, node_id, spki, now, issued.not_after))
    return issued


async def _refuse(db: Db, refusal: Refusal, token_id: str, evidence: dict[str, str], now: datetime) -> Refusal:
    await audit.record(
        db,
        actor=f"join_token/{token_id}",
        action=refusal,
        object_=f"join_token/{token_id}",
        detail=evidence,
        at=now,
    )
    return refusal


async def _audit(
    db: Db, action: str, node_id: NodeId, token_id: str, evidence: dict[str, str], now: datetime
) -> None:
    await audit.record(
        db, actor=f"join_token/{token_id}", action=action, object_=f"node/{node_id}", detail=evidence, at=now
    )
