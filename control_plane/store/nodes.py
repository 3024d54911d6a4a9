"""Questions about nodes: sessions and their epochs, reports, revocation.

Every session of a node has a number, its epoch, that only grows. What a lower epoch says is ignored, so an old
connection that lingers can neither overwrite nor end a newer one.

A database that was restored knows less than its nodes and gateways have seen. So a session begins with what the
node saw last, and epoch and revision count on from there: the node would refuse a lower revision, gateways a lower
epoch. What a node says of that moves its own row alone, and by no more than ``_BELIEVED``: a number that no honest
count reaches must not bring the next increment, which may be of all nodes at once, to its end.
"""

from datetime import datetime
from typing import Any

from control_plane.core.fleet import AgentInfo, Hardware, Node, NodeState, Report, WorkerReport
from control_plane.store import reports
from control_plane.store.changes import (
    desired_changed,
    lock_placement,
    placement_changed,
    snapshot_changed,
)
from control_plane.store.db import Db
from control_plane.store.wake import node_topic, notify, revocation_topic
from mesh.kit.errors import NotFound, PermissionDenied, Unauthenticated
from mesh.kit.ids import NodeId

_MOST = 2**63 - 1  # what a bigint holds
_BELIEVED = 2**62  # numbers of nodes count only below it

_LIST = """
SELECT n.*,
       (SELECT max(c.not_after) FROM certificates AS c
         WHERE c.node_id = n.node_id AND c.revoked_at IS NULL) AS certificate_expires_at
  FROM nodes AS n
 ORDER BY n.node_id
"""
_FIND = """
SELECT n.*,
       (SELECT max(c.not_after) FROM certificates AS c
         WHERE c.node_id = n.node_id AND c.revoked_at IS NULL) AS certificate_expires_at
  FROM nodes AS n
 WHERE n.node_id = $1
"""
_ONLINE_IDS = "SELECT node_id FROM nodes WHERE state = 'online'"
_COUNT_BY_STATE = "SELECT state, count(*) AS nodes FROM nodes GROUP BY state"
_ADMISSION = """
SELECT n.state, n.session_epoch, c.serial, c.revoked_at
  FROM nodes AS n
  LEFT JOIN certificates AS c ON c.node_id = n.node_id AND c.serial = $2
 WHERE n.node_id = $1
"""
_BEGIN = """
UPDATE nodes
   SET session_epoch = GREATEST(session_epoch, $9) + 1,
       desired_revision = CASE WHEN $10 > desired_revision THEN $10 + 1 ELSE desired_revision END,
       state = 'online', last_seen_at = $2, applied_revision = $3,
       agent_version = $4, agent_build_date = $5, agent_checksum = $6, hardware = $7, report = $8
 WHERE node_id = $1 AND state <> 'revoked'
RETURNING session_epoch
"""
_REPORT = """
WITH before AS (
    SELECT node_id, state FROM nodes WHERE node_id = $1 FOR NO KEY UPDATE
)
UPDATE nodes AS n
   SET state = 'online', last_seen_at = $3, applied_revision = $4,
       agent_version = COALESCE($5, n.agent_version),
       agent_build_date = COALESCE($6, n.agent_build_date),
       agent_checksum = COALESCE($7, n.agent_checksum),
       report = $8
  FROM before
 WHERE n.node_id = before.node_id AND n.session_epoch = $2 AND n.state <> 'revoked'
RETURNING before.state
"""
# A worker that the node does not name, or names with another spec, has not begun there.
_PHASES = """
WITH said AS (
    SELECT DISTINCT ON (worker_id) *
      FROM jsonb_to_recordset($2)
           AS s (worker_id text, spec_hash text, phase text, progress_percent integer, detail text)
), heard AS (
    SELECT a.worker_id, a.phase AS old_phase,
           COALESCE(said.phase, 'pending') AS phase,
           COALESCE(said.progress_percent, 0) AS progress_percent,
           COALESCE(said.detail, '') AS detail
      FROM assignments AS a
      LEFT JOIN said ON said.worker_id = a.worker_id AND said.spec_hash = a.spec_hash
     WHERE a.node_id = $1
)
UPDATE assignments AS a
   SET phase = heard.phase, progress_percent = heard.progress_percent, detail = heard.detail
  FROM heard
 WHERE a.worker_id = heard.worker_id
   AND (a.phase, a.progress_percent, a.detail)
       IS DISTINCT FROM (heard.phase, heard.progress_percent, heard.detail)
RETURNING heard.old_phase <> heard.phase AS moved
"""
_END = """
UPDATE nodes
   SET state = 'offline', last_seen_at = $3
 WHERE node_id = $1 AND session_epoch = $2 AND state = 'online'
"""
_EXPIRE_SILENT = """
UPDATE nodes AS n
   SET state = 'offline'
  FROM (SELECT node_id FROM nodes
         WHERE state = 'online' AND last_seen_at < $1
         ORDER BY node_id
           FOR NO KEY UPDATE) AS silent
 WHERE n.node_id = silent.node_id
RETURNING n.node_id
"""
_REVOKE = "UPDATE nodes SET state = 'revoked' WHERE node_id = $1 AND state <> 'revoked'"
_REVOKE_CERTIFICATES = """
UPDATE certificates
   SET revoked_at = $2
 WHERE node_id = $1 AND revoked_at IS NULL
"""
_RELEASE = "DELETE FROM assignments WHERE node_id = $1"
_DELETE_REVOKED = """
DELETE FROM nodes AS n
 WHERE n.state = 'revoked'
   AND NOT EXISTS (SELECT FROM certificates AS c WHERE c.node_id = n.node_id AND c.not_after >= $1)
RETURNING n.node_id
"""


async def get(db: Db, node_id: str) -> Node:
    """That node, or NotFound."""
    row = await db.fetchrow(_FIND, node_id)
    if row is None:
        raise NotFound("node", node_id)
    return _node(row)


async def list_(db: Db) -> list[Node]:
    """All of them, oldest first, the revoked ones too."""
    return [_node(row) for row in await db.fetch(_LIST)]


async def online_ids(db: Db) -> frozenset[NodeId]:
    """Who is connected now."""
    return frozenset(NodeId(row["node_id"]) for row in await db.fetch(_ONLINE_IDS))


async def count_by_state(db: Db) -> dict[NodeState, int]:
    """How many nodes are in each state that any node is in."""
    return {NodeState(row["state"]): row["nodes"] for row in await db.fetch(_COUNT_BY_STATE)}


async def require_admitted(db: Db, node_id: NodeId, *, serial: str) -> int:
    """Raise unless that node may be connected with that certificate; return the epoch of its newest session."""
    row = await db.fetchrow(_ADMISSION, node_id, serial)
    if row is None:
        raise Unauthenticated("node_unknown")
    if row["state"] == NodeState.REVOKED:
        raise PermissionDenied("node_revoked")
    if row["serial"] is None:
        raise Unauthenticated("certificate_unknown")
    if row["revoked_at"] is not None:
        raise PermissionDenied("certificate_revoked")
    epoch: int = row["session_epoch"]
    return epoch


async def begin_session(
    db: Db,
    node_id: NodeId,
    *,
    serial: str,
    agent_info: AgentInfo,
    hardware: Hardware,
    workers: tuple[WorkerReport, ...],
    applied_revision: int,
    last_epoch: int = 0,
    now: datetime,
) -> int:
    """Begin the node's newest session and return its epoch. Ends the join token's right to retry.

    The epoch is higher than ``last_epoch``, and the desired revision not below ``applied_revision``.
    Raises what ``require_admitted`` raises.
    """
    await require_admitted(db, node_id, serial=serial)
    report = Report(min(applied_revision, _MOST), workers)
    epoch: int | None = await db.fetchval(
        _BEGIN,
        node_id,
        now,
        report.applied_revision,
        agent_info.version,
        agent_info.build_date,
        agent_info.checksum,
        reports.hardware_json(hardware),
        reports.report_json(report),
        _believed(last_epoch),
        _believed(applied_revision),
    )
    if epoch is None:  # revoked between the two statements
        raise PermissionDenied("node_revoked")
    await notify(db, node_topic(node_id))  # an older session, in whichever replica, finds that it is fenced
    await placement_changed(db)
    await _record_phases(db, node_id, workers)
    return epoch


def _believed(said: int) -> int:
    return said if said < _BELIEVED else 0


async def record_report(db: Db, node_id: NodeId, epoch: int, report: Report, *, now: datetime) -> bool:
    """Keep what the node says. False, and nothing kept, when that is not its newest session or it is revoked."""
    agent = report.agent_info
    before: str | None = await db.fetchval(
        _REPORT,
        node_id,
        epoch,
        now,
        report.applied_revision,
        agent and agent.version,
        agent and agent.build_date,
        agent and agent.checksum,
        reports.report_json(report),
    )
    if before is None:
        return False
    if before != NodeState.ONLINE:
        await placement_changed(db)
    await _record_phases(db, node_id, report.workers)
    return True


async def end_session(db: Db, node_id: NodeId, epoch: int, *, now: datetime) -> bool:
    """The session ended. False, and nothing changed, when a newer one has begun."""
    ended = await db.execute(_END, node_id, epoch, now) == "UPDATE 1"
    if ended:
        await placement_changed(db)
    return ended


async def expire_silent(db: Db, *, seen_before: datetime) -> list[NodeId]:
    """Mark offline, and return, the online nodes not heard of since then: their control plane died with them."""
    rows = await db.fetch(_EXPIRE_SILENT, seen_before)
    if rows:
        await placement_changed(db)
    return [NodeId(row["node_id"]) for row in rows]


async def revoke(db: Db, node_id: str, *, now: datetime) -> Node:
    """The node may not go on, nor return; its workers are free to be placed elsewhere. NotFound when unknown.

    Revoking it again changes nothing.
    """
    await lock_placement(db)
    found = await get(db, node_id)
    if await db.execute(_REVOKE, node_id) == "UPDATE 1":
        await desired_changed(db, [found.node_id])
        await db.execute(_REVOKE_CERTIFICATES, node_id, now)
        await db.execute(_RELEASE, node_id)
        await notify(db, revocation_topic(found.node_id))
        await placement_changed(db)
        await snapshot_changed(db)
    return await get(db, node_id)


async def delete_revoked(db: Db, *, expired_before: datetime) -> list[NodeId]:
    """Forget the revoked nodes whose last certificate ended before then: expiry refuses them from now on."""
    rows = await db.fetch(_DELETE_REVOKED, expired_before)
    if rows:
        await snapshot_changed(db)
    return [NodeId(row["node_id"]) for row in rows]


async def _record_phases(db: Db, node_id: NodeId, workers: tuple[WorkerReport, ...]) -> None:
    """Carry what the node says to its assignments. Gateways hear of phases, not of every percent."""
    rows = await db.fetch(_PHASES, node_id, reports.workers_json(workers))
    if any(row["moved"] for row in rows):
        await snapshot_changed(db)


def _node(row: Any) -> Node:
    report = row["report"]
    return Node(
        node_id=NodeId(row["node_id"]),
        organization_id=row["organization_id"],
        hostname=row["hostname"],
        state=NodeState(row["state"]),
        created_at=row["created_at"],
        last_seen_at=row["last_seen_at"],
        epoch=row["session_epoch"],
        desired_revision=row["desired_revision"],
        applied_revision=row["applied_revision"],
        agent_info=reports.agent_info_of(row["agent_version"], row["agent_build_date"], row["agent_checksum"]),
        hardware=reports.hardware_of(row["hardware"]),
        workers=reports.workers_of(report),
        host=reports.host_of(report),
        gpus=reports.gpus_of(report),
        certificate_expires_at=row["certificate_expires_at"],
    )
