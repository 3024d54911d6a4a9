"""Questions about the certificates that nodes were given."""

from datetime import datetime
from typing import Any

from control_plane.core.fleet import Certificate
from control_plane.store.db import Db

_RECORD = """
INSERT INTO certificates (serial, node_id, spki, issued_at, not_after)
VALUES ($1, $2, $3, $4, $5)
"""
_FIND = """
SELECT serial, node_id, spki, issued_at, not_after, revoked_at
  FROM certificates
 WHERE serial = $1
"""
_DELETE_EXPIRED = """
DELETE FROM certificates AS c
 WHERE c.not_after < $1
   AND NOT EXISTS (SELECT FROM nodes AS n WHERE n.node_id = c.node_id AND n.state = 'revoked')
"""


async def record(db: Db, certificate: Certificate) -> None:
    """Keep a certificate that is about to be handed out."""
    await db.execute(
        _RECORD,
        certificate.serial,
        certificate.node_id,
        certificate.spki,
        certificate.issued_at,
        certificate.not_after,
    )


async def find(db: Db, serial: str) -> Certificate | None:
    """The certificate with that serial (lower-case hex), if we gave it and it has not long expired."""
    row = await db.fetchrow(_FIND, serial)
    return None if row is None else _certificate(row)


async def delete_expired(db: Db, *, before: datetime) -> int:
    """Forget what ended before then; no handshake accepts it any more. A revoked node's stay with its row."""
    tag = await db.execute(_DELETE_EXPIRED, before)
    return int(tag.removeprefix("DELETE "))


def _certificate(row: Any) -> Certificate:
    return Certificate(
        row["serial"], row["node_id"], row["spki"], row["issued_at"], row["not_after"], row["revoked_at"]
    )
