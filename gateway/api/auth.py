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

    def admit(self, visit: Visit, scope: str) -> tuple[Caller, Snapshot]:
        """The caller, and the snapshot that decides this request.

        Raises Unauthenticated, PermissionDenied when the key lacks the scope, or NotReady.
        """
        request = visit.request
        key = key_of(request.header(b"authorization"), request.header(b"x-api-key"))
        caller, snapshot = self.admission.admit(key, now=self.clock.now())
        caller.check_scope(scope)
        return caller, snapshot
