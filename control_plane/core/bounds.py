"""The limits of everything that comes from outside, in one place.

Each function returns the checked value, defaults filled in (in the schema, zero and empty mean the default), or
raises InvalidInput naming the field and its limit.
"""

import re
from datetime import datetime, timedelta

from control_plane.core.access import ApiKey, JoinToken, Organization
from control_plane.core.model import Deployment, Engine, Model
from mesh.kit.errors import InvalidInput
from mesh.kit.ids import DeploymentId, ModelId, OrganizationId

NAME_MAX = 64
MODEL_NAME_MAX = 128
SOURCE_MAX = 1024
LOOKUP_MAX = 128  # the longest name there is
TOKEN_TTL_S, TOKEN_TTL_MAX_S = 15 * 60, 24 * 3600
TOKEN_USES_MAX = 50
KEY_TTL_MAX_S = 10 * 366 * 24 * 3600  # ten years, leap days included
CONTEXT, CONTEXT_MIN, CONTEXT_MAX = 4096, 128, 1048576
GIB = 2**30
MEMORY_MIN, MEMORY_MAX = 2**20, 64 * 1024 * GIB  # 1 MiB to 64 TiB: beyond it someone mistook the unit
GPUS_MAX = 64
REPLICAS_MAX = 64
SLOTS, SLOTS_MAX = 4, 256
HOSTNAME_MAX = 64
VERSION_MAX = 64
ENDPOINT_MAX = 260  # a DNS name, a colon and a port

# Names end up on command lines, of engines and of people: one that began with "-" would be an option there.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_LOOKUP = re.compile(r"[A-Za-z0-9._:/-]{1,128}")  # also of what was named under older rules
_PACKAGE = re.compile(r"package:[A-Za-z_][A-Za-z0-9_.]*/(?P<file>[^\x00-\x1f\x7f]+)")
_FILE = re.compile(r"file:///(?P<file>[^\x00-\x1f\x7f]+)")
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def organization(*, organization_id: OrganizationId, name: str, now: datetime) -> Organization:
    """A new organization."""
    return Organization(organization_id, _name("name", name), now)


def api_key(*, key_id: str, organization_id: OrganizationId, name: str, ttl_s: int, now: datetime) -> ApiKey:
    """A new API key. A time to live of zero: for ever."""
    _within("ttl_s", ttl_s, 0, KEY_TTL_MAX_S)
    expires_at = now + timedelta(seconds=ttl_s) if ttl_s else None
    return ApiKey(key_id, organization_id, _name("name", name), now, expires_at)


def join_token(
    *, token_id: str, organization_id: OrganizationId, ttl_s: int, uses: int, now: datetime
) -> JoinToken:
    """A new join token."""
    ttl_s = _within("ttl_s", ttl_s or TOKEN_TTL_S, 1, TOKEN_TTL_MAX_S)
    uses = _within("uses", uses or 1, 1, TOKEN_USES_MAX)
    return JoinToken(token_id, organization_id, now, now + timedelta(seconds=ttl_s), uses)


def model(
    *,
    model_id: ModelId,
    name: str,
    source: str,
    context_length: int,
    memory_bytes: int,
    vram_bytes: int,
    gpu_count: int,
    now: datetime,
) -> Model:
    """A new model."""
    if not _MODEL_NAME.fullmatch(name):
        raise InvalidInput(
            "name",
            f'must be 1 to {MODEL_NAME_MAX} characters: letters, digits, ".", "_", "-", ":", "/",'
            " and begin with a letter or digit",
        )
    _source(source)
    context_length = _within("context_length", context_length or CONTEXT, CONTEXT_MIN, CONTEXT_MAX)
    memory_bytes = _within("memory_bytes", memory_bytes or GIB, MEMORY_MIN, MEMORY_MAX)
    _within("gpu_count", gpu_count, 0, GPUS_MAX)
    if gpu_count:
        _within("vram_bytes", vram_bytes, MEMORY_MIN, MEMORY_MAX)
    elif vram_bytes:
        raise InvalidInput("gpu_count", "must be at least 1 when vram_bytes is given")
    return Model(model_id, name, source, context_length, memory_bytes, vram_bytes, gpu_count, now)


def deployment(
    *,
    deployment_id: DeploymentId,
    name: str,
    model: Model,
    engine: str,
    replicas: int,
    slots: int,
    now: datetime,
) -> Deployment:
    """A new deployment of the model. Without a name it takes the model's, made to fit."""
    known = [str(one) for one in Engine]
    if (engine or Engine.LLAMACPP) not in known:
        raise InvalidInput("engine", f"must be one of: {', '.join(known)}")
    return Deployment(
        deployment_id=deployment_id,
        name=_name("name", name) if name else _NOT_IN_NAMES.sub("-", model.name)[:NAME_MAX],
        model_id=model.model_id,
        model_name=model.name,
        engine=Engine(engine or Engine.LLAMACPP),
        replicas=_within("replicas", replicas or 1, 1, REPLICAS_MAX),
        slots=_within("slots", slots or SLOTS, 1, SLOTS_MAX),
        created_at=now,
    )


def lookup(field: str, text: str) -> str:
    """An id or a name to look for: anything that some id or name could be."""
    if not _LOOKUP.fullmatch(text):
        raise InvalidInput(field, f"must be an id or a name of 1 to {LOOKUP_MAX} characters")
    return text


def hostname(text: str) -> str:
    """What a joining machine calls itself; for people, never an identity."""
    return _printable("hostname", text, HOSTNAME_MAX)


def agent_version(text: str) -> str:
    """What a joining agent calls its version."""
    return _printable("agent_version", text, VERSION_MAX)


def tunnel_endpoint(text: str) -> str:
    """Where agents reach a gateway: host:port."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or len(text) > ENDPOINT_MAX or not 1 <= int(match["port"]) <= 65535:
        raise InvalidInput("tunnel_endpoint", "must be host:port with a port of 1 to 65535")
    return text


def _name(field: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            field,
            f'must be 1 to {NAME_MAX} characters: letters, digits, ".", "_", "-",'
            " and begin with a letter or digit",
        )
    return text


def _printable(field: str, text: str, longest: int) -> str:
    if len(text) > longest or not text.isprintable():
        raise InvalidInput(field, f"must be at most {longest} printable characters")
    return text


def _within(field: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidInput(field, f"must be {low} to {high}, not {value}")
    return value


def _source(text: str) -> None:
    match = _PACKAGE.fullmatch(text) or _FILE.fullmatch(text)
    if match is None:
        raise InvalidInput("source", 'must be "package:<python package>/<file>" or "file:///<absolute path>"')
    if len(text) > SOURCE_MAX:
        raise InvalidInput("source", f"must be at most {SOURCE_MAX} characters")
    parts = match["file"].split("/")
    if not all(parts) or "." in parts or ".." in parts:
        raise InvalidInput("source", 'must name a file without "." or ".." or empty parts in its path')
