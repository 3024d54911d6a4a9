"""Who is calling: from the key that was sent and the snapshot in force to a caller, or a typed refusal."""

from dataclasses import dataclass, field
from datetime import datetime

from gateway.core.errors import NotReady
from gateway.core.limits import Subject
from gateway.core.snapshot import UNLIMITED, ApiKey, Cell, Model, Snapshot
from mesh.kit.errors import InvalidInput, PermissionDenied, Unauthenticated
from pki import api_keys

KNOWN = 4096  # keys remembered as verified; one more and we begin anew: a MAC costs microseconds


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client. One for each key and snapshot."""

    key: ApiKey
    subjects: tuple[Subject, ...]
    """Whose limits count: the key's and its project's."""

    @property
    def key_id(self) -> str:
        return self.key.key_id

    @property
    def organization_id(self) -> str:
        return self.key.organization_id

    def check_scope(self, scope: str) -> None:
        """Raises PermissionDenied when the key is not for that endpoint."""
        if self.key.scopes and scope not in self.key.scopes:
            raise PermissionDenied("scope_missing", f"this API key may not be used for {scope!r}")

    def may_use(self, model: Model) -> bool:
        """Whether the key is for that model, under any of its names."""
        allowed = self.key.allowed_models
        return not allowed or model.name in allowed or not allowed.isdisjoint(model.aliases)


@dataclass(slots=True)
class Admission:
    """Recognises keys. What was verified against one snapshot is forgotten with it."""

    cell: Cell
    _known: dict[str, Caller] = field(init=False, default_factory=dict)
    _snapshot: Snapshot | None = field(init=False, default=None)

    def admit(self, key: str, *, now: datetime) -> tuple[Caller, Snapshot]:
        """The caller, and the snapshot that says so. Raises Unauthenticated, or NotReady without a snapshot."""
        snapshot = self.cell.current
        if snapshot is None:
            raise NotReady("this gateway has not heard from its control plane yet")
        if snapshot is not self._snapshot:
            self._known.clear()
            self._snapshot = snapshot
        found = self._known.get(key)
        if found is None:
            found = _caller(_verify(key, snapshot), snapshot)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[key] = found
        if found.key.expires_at is not None and found.key.expires_at <= now:
            raise Unauthenticated("invalid_api_key", "the API key has expired")
        return found, snapshot


def key_of(authorization: str | None, api_key: str | None) -> str:
    """The key in ``Authorization: Bearer`` or, without one, in ``X-API-Key``. Raises Unauthenticated."""
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
    elif api_key:
        return api_key.strip()
    raise Unauthenticated("invalid_api_key", "no API key: send it as 'Authorization: Bearer <key>'")


def _caller(key: ApiKey, snapshot: Snapshot) -> Caller:
    subjects = [Subject(key.key_id, key.limits)] if key.limits != UNLIMITED else []
    project = snapshot.projects.get(key.project_id)
    if project is not None and project.limits != UNLIMITED:
        subjects.append(Subject(project.project_id, project.limits, "project"))
    return Caller(key, tuple(subjects))


def _verify(text: str, snapshot: Snapshot) -> ApiKey:
    """The entry of that key. One refusal for every cause, so that a guess teaches nothing."""
    try:
        key = api_keys.parse(text)
    except InvalidInput as exc:
        raise Unauthenticated("invalid_api_key", "the API key is not valid") from exc
    found = snapshot.keys.get(key.id)
    if found is None or not key.matches(snapshot.key_pepper, found.secret_mac):
        raise Unauthenticated("invalid_api_key", "the API key is not valid")
    return found
