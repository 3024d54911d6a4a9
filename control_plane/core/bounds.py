"""The limits of everything that comes from outside, in one place.

Each function returns the checked value, defaults filled in (in the schema, zero and empty mean the default), or
raises InvalidInput naming the field and its limit.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.core.access import ApiKey, JoinToken, Organization
from control_plane.core.limits import ANYTHING, LIMITS, SCOPES, KeyPolicy, Limits
from control_plane.core.model import FREE, SIMULATED, Adapter, Deployment, Engine, Model, Price, RoutingPolicy
from control_plane.core.projects import Project
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
PROJECT_LOOKUP_MAX = 2 * NAME_MAX + 1  # "<organization>/<name>"
ALLOWED_MODELS_MAX = 200
WEIGHT_MAX = 1000
REQUESTS_MAX = 10**9  # beyond these someone mistook the unit
TOKENS_MAX = 10**15
MONEY_MAX = 10**18  # nano-units: a thousand million
PRICE_MAX = 10**15  # nano-units for a million tokens: a million
ALIASES_MAX = 16
ADAPTERS_MAX = 64
PATHS_MAX = 32
PATH_MAX = 128
PROCESS_MAX = 63

# Names end up on command lines, of engines and of people: one that began with "-" would be an option there.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_LOOKUP = re.compile(r"[A-Za-z0-9._:/-]{1,128}")  # also of what was named under older rules
_LOOKUP_PROJECT = re.compile(rf"[A-Za-z0-9._/-]{{1,{PROJECT_LOOKUP_MAX}}}")
_PACKAGE = re.compile(r"package:[A-Za-z_][A-Za-z0-9_.]*/(?P<file>[^\x00-\x1f\x7f]+)")
_FILE = re.compile(r"file:///(?P<file>[^\x00-\x1f\x7f]+)")
_ENDPOINT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_OPTION = re.compile(r"(?P<key>[a-z][a-z0-9_]*)=[A-Za-z0-9._+:/-]+")
_PATH = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_START_ID = re.compile(r"[0-9a-f]{1,32}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def organization(*, organization_id: OrganizationId, name: str, now: datetime) -> Organization:
    """A new organization."""
    return Organization(organization_id, _name("name", name), now)


def api_key(
    *,
    key_id: str,
    organization_id: OrganizationId,
    name: str,
    ttl_s: int,
    now: datetime,
    project_id: str | None = None,
    policy: KeyPolicy = ANYTHING,
) -> ApiKey:
    """A new API key. A time to live of zero: for ever."""
    _within("ttl_s", ttl_s, 0, KEY_TTL_MAX_S)
    expires_at = now + timedelta(seconds=ttl_s) if ttl_s else None
    return ApiKey(key_id, organization_id, _name("name", name), now, expires_at, project_id, key_policy(policy))


def key_policy(wanted: KeyPolicy) -> KeyPolicy:
    """What a key may do: a weight of zero is 1, and what is named twice counts once."""
    for scope in wanted.scopes:
        if scope not in SCOPES:
            raise InvalidInput("policy.scopes", f"must be of: {', '.join(SCOPES)}")
    allowed = tuple(dict.fromkeys(wanted.allowed_models))
    _at_most("policy.allowed_models", len(allowed), ALLOWED_MODELS_MAX)
    for name in allowed:
        _model_name("policy.allowed_models", name)
    return KeyPolicy(
        scopes=tuple(dict.fromkeys(wanted.scopes)),
        allowed_models=allowed,
        limits=limits("policy.limits", wanted.limits),
        weight=_within("policy.weight", wanted.weight or 1, 1, WEIGHT_MAX),
        priority=wanted.priority,
    )


def limits(field: str, wanted: Limits) -> Limits:
    """The limits of a key or a project. Zero of something is none of it."""
    for name in LIMITS:
        most = TOKENS_MAX if name.startswith("tokens") else MONEY_MAX if name.startswith("money") else REQUESTS_MAX
        if (value := getattr(wanted, name)) is not None:
            _within(f"{field}.{name}", value, 0, most)
    return wanted


def project(
    *, project_id: str, organization_id: OrganizationId, name: str, wanted: Limits, now: datetime
) -> Project:
    """A new project."""
    return Project(project_id, organization_id, _name("name", name), now, limits("limits", wanted))


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
    aliases: Sequence[str] = (),
    price: Price = FREE,
    adapters: Sequence[Adapter] = (),
) -> Model:
    """A new model. Of all its names, none may be there twice."""
    _model_name("name", name)
    _source("source", source)
    context_length = _within("context_length", context_length or CONTEXT, CONTEXT_MIN, CONTEXT_MAX)
    memory_bytes = _within("memory_bytes", memory_bytes or GIB, MEMORY_MIN, MEMORY_MAX)
    _within("gpu_count", gpu_count, 0, GPUS_MAX)
    if gpu_count:
        _within("vram_bytes", vram_bytes, MEMORY_MIN, MEMORY_MAX)
    elif vram_bytes:
        raise InvalidInput("gpu_count", "must be at least 1 when vram_bytes is given")
    made = Model(
        model_id=model_id,
        name=name,
        source=source,
        context_length=context_length,
        memory_bytes=memory_bytes,
        vram_bytes=vram_bytes,
        gpu_count=gpu_count,
        created_at=now,
        price=model_price(price),
        adapters=_adapters(adapters, source),
    )
    _each_name_once("adapters", [name, *(one.name for one in adapters)])
    return replace(made, aliases=model_aliases(aliases, made))


def model_aliases(wanted: Sequence[str], model: Model) -> tuple[str, ...]:
    """Other names of that model, in the order of the alphabet."""
    _at_most("aliases", len(wanted), ALIASES_MAX)
    for one in wanted:
        _model_name("aliases", one)
    _each_name_once("aliases", [model.name, *(one.name for one in model.adapters), *wanted])
    return tuple(sorted(wanted))


def model_price(price: Price) -> Price:
    """What a model costs."""
    for name in ("prompt", "cached", "completion"):
        _within(f"price.{name}", getattr(price, name), 0, PRICE_MAX)
    return price


def deployment(
    *,
    deployment_id: DeploymentId,
    name: str,
    model: Model,
    engine: str,
    replicas: int,
    slots: int,
    now: datetime,
    policy: RoutingPolicy = RoutingPolicy.BALANCED,
    pass_through: Sequence[str] = (),
) -> Deployment:
    """A new deployment of the model. Without a name it takes the model's, made to fit."""
    known = [str(one) for one in Engine]
    if (engine or Engine.LLAMACPP) not in known:
        raise InvalidInput("engine", f"must be one of: {', '.join(known)}")
    if model.simulated != ((engine or Engine.LLAMACPP) == Engine.SIMULATOR):
        must = "must be" if model.simulated else "must not be"
        raise InvalidInput("engine", f'{must} "{Engine.SIMULATOR}" for the source "{model.source}"')
    return Deployment(
        deployment_id=deployment_id,
        name=_name("name", name) if name else _NOT_IN_NAMES.sub("-", model.name)[:NAME_MAX],
        model_id=model.model_id,
        model_name=model.name,
        engine=Engine(engine or Engine.LLAMACPP),
        replicas=_within("replicas", replicas or 1, 1, REPLICAS_MAX),
        slots=_within("slots", slots or SLOTS, 1, SLOTS_MAX),
        created_at=now,
        policy=policy,
        pass_through=paths(pass_through),
    )


def paths(wanted: Sequence[str]) -> tuple[str, ...]:
    """Further paths of an engine, in the order of the alphabet, each once."""
    _at_most("pass_through", len(wanted), PATHS_MAX)
    for one in wanted:
        if len(one) > PATH_MAX or not _PATH.fullmatch(one):
            raise InvalidInput(
                "pass_through",
                f'must be paths like "/v1/audio/speech" of at most {PATH_MAX} letters, digits, "._-/"',
            )
    return tuple(sorted(set(wanted)))


def lookup(field: str, text: str) -> str:
    """An id or a name to look for: anything that some id or name could be."""
    if not _LOOKUP.fullmatch(text):
        raise InvalidInput(field, f"must be an id or a name of 1 to {LOOKUP_MAX} characters")
    return text


def project_lookup(field: str, text: str) -> str:
    """The id of a project to look for, or its "<organization>/<name>"."""
    if not _LOOKUP_PROJECT.fullmatch(text):
        raise InvalidInput(
            field, f'must be an id or "<organization>/<name>" of 1 to {PROJECT_LOOKUP_MAX} characters'
        )
    return text


def hostname(text: str) -> str:
    """What a joining machine calls itself; for people, never an identity."""
    return _printable("hostname", text, HOSTNAME_MAX)


def agent_version(text: str) -> str:
    """What a joining agent calls its version."""
    return _printable("agent_version", text, VERSION_MAX)


def tunnel_endpoint(text: str) -> str:
    """Where agents reach a gateway: host:port."""
    return _endpoint("tunnel_endpoint", text)


def peer_endpoint(text: str) -> str:
    """Where other gateways reach a gateway: host:port, or empty when they do not."""
    return _endpoint("peer_endpoint", text) if text else ""


def process(number: int) -> int:
    """Which process of a gateway."""
    return _within("process", number, 0, PROCESS_MAX)


def start_id(text: str) -> str:
    """Which run of a process."""
    if not _START_ID.fullmatch(text):
        raise InvalidInput("start_id", "must be 1 to 32 characters of lower-case hex")
    return text


def _endpoint(field: str, text: str) -> str:
    match = _ENDPOINT.fullmatch(text)
    if match is None or len(text) > ENDPOINT_MAX or not 1 <= int(match["port"]) <= 65535:
        raise InvalidInput(field, "must be host:port with a port of 1 to 65535")
    return text


def _name(field: str, text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            field,
            f'must be 1 to {NAME_MAX} characters: letters, digits, ".", "_", "-",'
            " and begin with a letter or digit",
        )
    return text


def _model_name(field: str, text: str) -> None:
    if not _MODEL_NAME.fullmatch(text):
        raise InvalidInput(
            field,
            f'must be 1 to {MODEL_NAME_MAX} characters: letters, digits, ".", "_", "-", ":", "/",'
            " and begin with a letter or digit",
        )


def _each_name_once(field: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidInput(field, f"{name!r} is a name of this model already")


def _adapters(wanted: Sequence[Adapter], source: str) -> tuple[Adapter, ...]:
    _at_most("adapters", len(wanted), ADAPTERS_MAX)
    for place, one in enumerate(wanted):
        _model_name(f"adapters[{place}].name", one.name)
        _source(f"adapters[{place}].source", one.source)
        if one.source.startswith(SIMULATED) and not source.startswith(SIMULATED):
            raise InvalidInput(f"adapters[{place}].source", f'must not be "{SIMULATED}…" beside a real model')
    return tuple(sorted(wanted, key=lambda one: one.name))


def _at_most(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidInput(field, f"must be at most {most}, not {count}")


def _printable(field: str, text: str, longest: int) -> str:
    if len(text) > longest or not text.isprintable():
        raise InvalidInput(field, f"must be at most {longest} printable characters")
    return text


def _within(field: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidInput(field, f"must be {low} to {high}, not {value}")
    return value


def _source(field: str, text: str) -> None:
    if len(text) > SOURCE_MAX:
        raise InvalidInput(field, f"must be at most {SOURCE_MAX} characters")
    if text.startswith(SIMULATED):
        _simulated(field, text.removeprefix(SIMULATED))
        return
    match = _PACKAGE.fullmatch(text) or _FILE.fullmatch(text)
    if match is None:
        raise InvalidInput(
            field,
            'must be "package:<python package>/<file>", "file:///<absolute path>" or "simulator:<key>=<value>,…"',
        )
    parts = match["file"].split("/")
    if not all(parts) or "." in parts or ".." in parts:
        raise InvalidInput(field, 'must name a file without "." or ".." or empty parts in its path')


def _simulated(field: str, options: str) -> None:
    keys = []
    for option in options.split(",") if options else ():
        match = _OPTION.fullmatch(option)
        if match is None:
            raise InvalidInput(field, 'must have options like "seed=7,token_ms=5" after "simulator:"')
        keys.append(match["key"])
    if len(set(keys)) < len(keys):
        raise InvalidInput(field, 'must have each option once after "simulator:"')
