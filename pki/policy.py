"""How long certificates live, what they may be used for, and when to renew them. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum

from pki.names import Kind

BACKDATE = timedelta(minutes=5)  # NotBefore lies in the past, for clocks that run behind
ROOT_LIFETIME = timedelta(days=3650)
# The aim is 90 days. Until issuing CAs rotate by themselves (README) a mesh must not stop in its third month.
ISSUING_LIFETIME = timedelta(days=730)
LEAF_LIFETIME = {
    Kind.NODE: timedelta(hours=24),
    Kind.GATEWAY: timedelta(hours=24),
    Kind.CONTROL_PLANE: timedelta(hours=24),
    Kind.OPERATOR: timedelta(hours=8),
}
MAX_LEAF_LIFETIME = timedelta(days=30)
RENEWAL_JITTER = 0.1  # of the lifetime, to each side of its half


class Role(StrEnum):
    """The three issuing CAs. The value is the beginning of its files' names."""

    NODE = "node"
    CONTROL = "control"
    OPERATOR = "operator"


SIGNED_BY = {
    Kind.NODE: Role.NODE,
    Kind.GATEWAY: Role.CONTROL,
    Kind.CONTROL_PLANE: Role.CONTROL,
    Kind.OPERATOR: Role.OPERATOR,
}
SERVERS = frozenset(
    {Kind.GATEWAY, Kind.CONTROL_PLANE}
)  # they also listen, so they also get serverAuth and a DNS name


def renew_at(not_before: datetime, not_after: datetime, *, jitter: float = 0.5) -> datetime:
    """When to renew: half of the life, ±10 % of it. ``jitter`` (0 to 1) picks the point, 0.5 the middle.

    ``not_before`` is the certificate's own, so life is counted from BACKDATE later, when it was issued.
    """
    issued = not_before + BACKDATE
    return issued + (not_after - issued) * (0.5 + RENEWAL_JITTER * (2 * jitter - 1))
