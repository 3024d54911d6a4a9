"""Projects, as values: what keys are grouped by, with limits over all of them."""

from dataclasses import dataclass
from datetime import datetime

from control_plane.core.limits import UNLIMITED, Limits
from mesh.kit.ids import OrganizationId


@dataclass(frozen=True, slots=True)
class Project:
    """A budget of keys. Its name is unique within its organization."""

    project_id: str
    organization_id: OrganizationId
    name: str
    created_at: datetime
    limits: Limits = UNLIMITED
