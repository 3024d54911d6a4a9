"""Who may: organizations, API keys and join tokens, as values. Secrets are never part of them."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from control_plane.core.limits import ANYTHING, KeyPolicy
from mesh.kit.ids import OrganizationId


@dataclass(frozen=True, slots=True)
class Organization:
    """Who consumes, and who owns machines."""

    organization_id: OrganizationId
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the OpenAI endpoint, without its secret."""

    key_id: str
    organization_id: OrganizationId
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    project_id: str | None = None
    policy: KeyPolicy = ANYTHING

    @property
    def prefix(self) -> str:
        """What its text begins with, as people see it."""
        return f"inv-{self.key_id}"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token by which machines join, without its secret."""

    token_id: str
    organization_id: OrganizationId
    created_at: datetime
    expires_at: datetime
    uses_left: int
    revoked_at: datetime | None = None


def api_key_text(key_id: str, secret: str) -> str:
    """The whole key, as shown once to the one who made it."""
    return f"inv-{key_id}-{secret}"


def api_key_mac(pepper: bytes, secret: str) -> bytes:
    """What is kept of a key's secret. The secret is random and long, so a fast hash is right."""
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)
