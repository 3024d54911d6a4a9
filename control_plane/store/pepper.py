"""The question whether our pepper is the one that this database's keys and tokens were hashed with."""

import hashlib
import hmac

from control_plane.store.db import Db

_RECORD = "INSERT INTO pepper (fingerprint) VALUES ($1) ON CONFLICT DO NOTHING"
_FIND = "SELECT fingerprint FROM pepper"


def fingerprint(pepper: bytes) -> bytes:
    """What may be known of a pepper: enough to tell it from another, nothing to make a hash with."""
    return hmac.digest(pepper, b"inventiv-mesh pepper fingerprint 1", hashlib.sha256)


async def agrees(db: Db, pepper: bytes) -> bool:
    """Whether it is this database's pepper. The first one that is asked for becomes it."""
    ours = fingerprint(pepper)
    await db.execute(_RECORD, ours)
    kept: bytes = await db.fetchval(_FIND)
    return hmac.compare_digest(kept, ours)
