"""From a request's headers to its caller."""

from dataclasses import dataclass

from gateway.api.visit import Visit
from gateway.core.admission import Admission, Caller, key_of
from gateway.core.snapshot import Snapshot
from mesh.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Door:
    """Lets callers in by their key."""

    admission: Admission
    clock: Clock

    def admit(self, visit: Visit) -> tuple[Caller, Snapshot]:
        """The caller, and the snapshot that decides this request. Raises Unauthenticated or NotReady."""
        headers = visit.request.headers
        key = key_of(headers.get("Authorization"), headers.get("X-API-Key"))
        return self.admission.admit(key, now=self.clock.now())
