"""What a change sets off: revisions raised and hints sent, in the transaction that makes the change.

Locks are taken in one order, so that changes wait for each other instead of deadlocking: the placement lock,
node rows by id, everything else, and the one row of ``revisions`` last.
"""

from collections.abc import Iterable

from control_plane.store.db import Db
from control_plane.store.wake import HUBS, PLACEMENT, SNAPSHOT, node_topic, notify
from mesh.kit.ids import NodeId

_PLACEMENT_LOCK = 0x706C6163  # "plac"

_LOCK = "SELECT pg_advisory_xact_lock($1)"
_RAISE_SNAPSHOT = "UPDATE revisions SET snapshot_revision = snapshot_revision + 1"
_RAISE_NODES = """
UPDATE nodes AS n
   SET desired_revision = desired_revision + 1
  FROM (SELECT node_id FROM nodes
         WHERE node_id = ANY($1::text[])
         ORDER BY node_id
           FOR NO KEY UPDATE) AS touched
 WHERE n.node_id = touched.node_id
"""
_RAISE_ALL_NODES = """
UPDATE nodes AS n
   SET desired_revision = desired_revision + 1
  FROM (SELECT node_id FROM nodes WHERE state <> 'revoked' ORDER BY node_id FOR NO KEY UPDATE) AS touched
 WHERE n.node_id = touched.node_id
"""


async def lock_placement(db: Db) -> None:
    """Wait to be the only one who changes who runs what, until this transaction ends."""
    await db.execute(_LOCK, _PLACEMENT_LOCK)


async def desired_changed(db: Db, node_ids: Iterable[NodeId]) -> None:
    """Those nodes have a new desired state."""
    touched = sorted(set(node_ids))
    await db.execute(_RAISE_NODES, touched)
    await notify(db, *(node_topic(node_id) for node_id in touched))


async def hubs_changed(db: Db) -> None:
    """Every node has a new desired state."""
    await db.execute(_RAISE_ALL_NODES)
    await notify(db, HUBS)


async def snapshot_changed(db: Db) -> None:
    """Gateways have something new to hear. Last before the commit: the row it locks is everybody's."""
    await db.execute(_RAISE_SNAPSHOT)
    await notify(db, SNAPSHOT)


async def placement_changed(db: Db) -> None:
    """Someone should place again."""
    await notify(db, PLACEMENT)
