"""Identifiers: what they are called, and how they are made (UUIDv7, RFC 9562 §5.7)."""

import secrets
from datetime import datetime
from typing import NewType

NodeId = NewType("NodeId", str)
WorkerId = NewType("WorkerId", str)
GatewayId = NewType("GatewayId", str)
OrganizationId = NewType("OrganizationId", str)
ModelId = NewType("ModelId", str)
DeploymentId = NewType("DeploymentId", str)
RequestId = NewType("RequestId", str)


NOISE = 10  # octets of randomness in an id


def uuid7(now: datetime, random: bytes | None = None) -> str:
    """A new UUIDv7 for that moment, in the usual text form; later moments sort later.

    Whoever makes many passes ``NOISE`` random octets, never the same twice.
    """
    stamp = int(now.timestamp() * 1000) & (1 << 48) - 1
    noise = int.from_bytes(random or secrets.token_bytes(NOISE))
    value = stamp << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    text = f"{value:032x}"  # a third of what uuid.UUID takes for it; gateways make one per request
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
