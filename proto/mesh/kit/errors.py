"""The errors this project raises on purpose. Each carries data, not prose.

MeshError
├── InvalidInput          a field is outside its limits
├── NotFound              no such thing
├── AlreadyExists         the name is taken
├── InUse                 others depend on it
├── Unauthenticated       we do not know who is calling
├── PermissionDenied      we know, and the answer is no
├── TooManyRequests       slow down
├── Unavailable           not now; later, perhaps
└── StaleEpoch            a newer session exists
"""

from typing import ClassVar


class MeshError(Exception):
    """Base of every error we expect someone to handle."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class InvalidInput(MeshError):
    """A field is outside its limits; the text names both."""

    code = "invalid_input"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class NotFound(MeshError):
    """No such thing."""

    code = "not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name!r}")
        self.kind, self.name = kind, name


class AlreadyExists(MeshError):
    """The name is taken."""

    code = "already_exists"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name!r} exists already")
        self.kind, self.name = kind, name


class InUse(MeshError):
    """Others depend on it."""

    code = "in_use"

    def __init__(self, kind: str, name: str, by: str) -> None:
        super().__init__(f"{kind} {name!r} is in use by {by}")
        self.kind, self.name, self.by = kind, name, by


class Unauthenticated(MeshError):
    """We do not know who is calling. ``reason`` is a code, e.g. ``certificate_expired``."""

    code = "unauthenticated"

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason.replace("_", " "))
        self.reason = reason


class PermissionDenied(MeshError):
    """We know who is calling, and the answer is no. ``reason`` is a code, e.g. ``node_revoked``."""

    code = "permission_denied"

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason.replace("_", " "))
        self.reason = reason


class TooManyRequests(MeshError):
    """Slow down."""

    code = "too_many_requests"
    retryable = True

    def __init__(self, text: str, *, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class Unavailable(MeshError):
    """Not now; later, perhaps."""

    code = "unavailable"
    retryable = True


class StaleEpoch(MeshError):
    """A newer session of the same node exists."""

    code = "stale_epoch"

    def __init__(self, *, epoch: int, newest: int) -> None:
        super().__init__(f"epoch {epoch} is older than {newest}")
        self.epoch, self.newest = epoch, newest
