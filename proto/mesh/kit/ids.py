"""Identifiers: what they are called, and how they are made (UUIDv7, RFC 9562 §5.7)."""

import secrets
from datetime import datetime
from typing import NewType
from uuid import UUID

NodeId = NewType("NodeId", str)
WorkerId = NewType("WorkerId", str)
GatewayId = NewType("GatewayId", str)
OrganizationId = NewType("OrganizationId", str)
ModelId = NewType("ModelId", str)
DeploymentId = NewType("DeploymentId", str)
RequestId = NewType("RequestId", str)


def uuid7(now: datetime) -> str:
    """A new UUIDv7 for that moment, in the usual text form; later moments sort later."""
    stamp = int(now.timestamp() * 1000)
    value = (stamp & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    return str(UUID(int=value | 0b10 << 62 | secrets.randbits(62)))
