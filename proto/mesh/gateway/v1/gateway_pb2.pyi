import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from mesh.types.v1 import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_LOW: _ClassVar[Priority]
    PRIORITY_NORMAL: _ClassVar[Priority]
    PRIORITY_HIGH: _ClassVar[Priority]

class RoutingPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROUTING_POLICY_UNSPECIFIED: _ClassVar[RoutingPolicy]
    ROUTING_POLICY_BALANCED: _ClassVar[RoutingPolicy]
    ROUTING_POLICY_PREFIX: _ClassVar[RoutingPolicy]
    ROUTING_POLICY_SESSION: _ClassVar[RoutingPolicy]
    ROUTING_POLICY_ROUND_ROBIN: _ClassVar[RoutingPolicy]
    ROUTING_POLICY_CHEAPEST: _ClassVar[RoutingPolicy]

class UsageOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_OUTCOME_UNSPECIFIED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_COMPLETED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_FAILED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_CANCELLED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_INTERRUPTED: _ClassVar[UsageOutcome]

class QuotaKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUOTA_KIND_UNSPECIFIED: _ClassVar[QuotaKind]
    QUOTA_KIND_REQUESTS_PER_MINUTE: _ClassVar[QuotaKind]
    QUOTA_KIND_TOKENS_PER_MINUTE: _ClassVar[QuotaKind]
    QUOTA_KIND_CONCURRENT_REQUESTS: _ClassVar[QuotaKind]
    QUOTA_KIND_TOKENS_PER_DAY: _ClassVar[QuotaKind]
    QUOTA_KIND_TOKENS_PER_MONTH: _ClassVar[QuotaKind]
    QUOTA_KIND_MONEY_PER_DAY: _ClassVar[QuotaKind]
    QUOTA_KIND_MONEY_PER_MONTH: _ClassVar[QuotaKind]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_LOW: Priority
PRIORITY_NORMAL: Priority
PRIORITY_HIGH: Priority
ROUTING_POLICY_UNSPECIFIED: RoutingPolicy
ROUTING_POLICY_BALANCED: RoutingPolicy
ROUTING_POLICY_PREFIX: RoutingPolicy
ROUTING_POLICY_SESSION: RoutingPolicy
ROUTING_POLICY_ROUND_ROBIN: RoutingPolicy
ROUTING_POLICY_CHEAPEST: RoutingPolicy
USAGE_OUTCOME_UNSPECIFIED: UsageOutcome
USAGE_OUTCOME_COMPLETED: UsageOutcome
USAGE_OUTCOME_FAILED: UsageOutcome
USAGE_OUTCOME_CANCELLED: UsageOutcome
USAGE_OUTCOME_INTERRUPTED: UsageOutcome
QUOTA_KIND_UNSPECIFIED: QuotaKind
QUOTA_KIND_REQUESTS_PER_MINUTE: QuotaKind
QUOTA_KIND_TOKENS_PER_MINUTE: QuotaKind
QUOTA_KIND_CONCURRENT_REQUESTS: QuotaKind
QUOTA_KIND_TOKENS_PER_DAY: QuotaKind
QUOTA_KIND_TOKENS_PER_MONTH: QuotaKind
QUOTA_KIND_MONEY_PER_DAY: QuotaKind
QUOTA_KIND_MONEY_PER_MONTH: QuotaKind

class WatchSnapshotRequest(_message.Message):
    __slots__ = ("tunnel_endpoint", "version", "process", "peer_endpoint")
    TUNNEL_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    PEER_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    tunnel_endpoint: str
    version: str
    process: int
    peer_endpoint: str
    def __init__(self, tunnel_endpoint: _Optional[str] = ..., version: _Optional[str] = ..., process: _Optional[int] = ..., peer_endpoint: _Optional[str] = ...) -> None: ...

class WatchSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("revision", "key_pepper", "api_keys", "models", "revoked_nodes", "projects", "peers")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_PEPPER_FIELD_NUMBER: _ClassVar[int]
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_NODES_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    key_pepper: bytes
    api_keys: _containers.RepeatedCompositeFieldContainer[ApiKey]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    revoked_nodes: _containers.RepeatedScalarFieldContainer[str]
    projects: _containers.RepeatedCompositeFieldContainer[Project]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, revision: _Optional[int] = ..., key_pepper: _Optional[bytes] = ..., api_keys: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., revoked_nodes: _Optional[_Iterable[str]] = ..., projects: _Optional[_Iterable[_Union[Project, _Mapping]]] = ..., peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class Project(_message.Message):
    __slots__ = ("project_id", "organization_id", "limits")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    organization_id: str
    limits: Limits
    def __init__(self, project_id: _Optional[str] = ..., organization_id: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day", "tokens_per_month", "money_per_day", "money_per_month")
    REQUESTS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MONTH_FIELD_NUMBER: _ClassVar[int]
    MONEY_PER_DAY_FIELD_NUMBER: _ClassVar[int]
    MONEY_PER_MONTH_FIELD_NUMBER: _ClassVar[int]
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int
    tokens_per_day: int
    tokens_per_month: int
    money_per_day: int
    money_per_month: int
    def __init__(self, requests_per_minute: _Optional[int] = ..., tokens_per_minute: _Optional[int] = ..., concurrent_requests: _Optional[int] = ..., tokens_per_day: _Optional[int] = ..., tokens_per_month: _Optional[int] = ..., money_per_day: _Optional[int] = ..., money_per_month: _Optional[int] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("hub_id", "endpoint", "server_name")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    endpoint: str
    server_name: str
    def __init__(self, hub_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., server_name: _Optional[str] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("key_id", "secret_mac", "organization_id", "expires_at", "project_id", "scopes", "allowed_models", "limits", "weight", "priority")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_MAC_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    secret_mac: bytes
    organization_id: str
    expires_at: _timestamp_pb2.Timestamp
    project_id: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    allowed_models: _containers.RepeatedScalarFieldContainer[str]
    limits: Limits
    weight: int
    priority: Priority
    def __init__(self, key_id: _Optional[str] = ..., secret_mac: _Optional[bytes] = ..., organization_id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., project_id: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., allowed_models: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., weight: _Optional[int] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "organization_id", "created_at", "context_length", "routes", "aliases", "engine_name", "base_model", "policy", "price", "pass_through", "can_start")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_NAME_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    PASS_THROUGH_FIELD_NUMBER: _ClassVar[int]
    CAN_START_FIELD_NUMBER: _ClassVar[int]
    name: str
    organization_id: str
    created_at: _timestamp_pb2.Timestamp
    context_length: int
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    engine_name: str
    base_model: str
    policy: RoutingPolicy
    price: Price
    pass_through: _containers.RepeatedScalarFieldContainer[str]
    can_start: bool
    def __init__(self, name: _Optional[str] = ..., organization_id: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., context_length: _Optional[int] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., aliases: _Optional[_Iterable[str]] = ..., engine_name: _Optional[str] = ..., base_model: _Optional[str] = ..., policy: _Optional[_Union[RoutingPolicy, str]] = ..., price: _Optional[_Union[Price, _Mapping]] = ..., pass_through: _Optional[_Iterable[str]] = ..., can_start: _Optional[bool] = ...) -> None: ...

class Price(_message.Message):
    __slots__ = ("prompt", "cached", "completion")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    prompt: int
    cached: int
    completion: int
    def __init__(self, prompt: _Optional[int] = ..., cached: _Optional[int] = ..., completion: _Optional[int] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("worker_id", "node_id", "deployment_id", "engine", "slots", "phase", "weight", "cost_per_hour")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    COST_PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    node_id: str
    deployment_id: str
    engine: str
    slots: int
    phase: _worker_pb2.WorkerPhase
    weight: int
    cost_per_hour: int
    def __init__(self, worker_id: _Optional[str] = ..., node_id: _Optional[str] = ..., deployment_id: _Optional[str] = ..., engine: _Optional[str] = ..., slots: _Optional[int] = ..., phase: _Optional[_Union[_worker_pb2.WorkerPhase, str]] = ..., weight: _Optional[int] = ..., cost_per_hour: _Optional[int] = ...) -> None: ...

class ReportUsageRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[UsageRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[UsageRecord, _Mapping]]] = ...) -> None: ...

class ReportUsageResponse(_message.Message):
    __slots__ = ("stored_request_ids",)
    STORED_REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    stored_request_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stored_request_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UsageRecord(_message.Message):
    __slots__ = ("request_id", "key_id", "organization_id", "model", "worker_id", "node_id", "outcome", "started_at", "first_token_ms", "duration_ms", "prompt_tokens", "completion_tokens", "cached_tokens", "streamed", "status", "project_id", "deployment_id", "endpoint", "reserved_tokens", "reserved_money", "charged_tokens", "charged_money", "estimated", "queue_ms", "inter_token_us", "continuations")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RESERVED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_MONEY_FIELD_NUMBER: _ClassVar[int]
    CHARGED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CHARGED_MONEY_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INTER_TOKEN_US_FIELD_NUMBER: _ClassVar[int]
    CONTINUATIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    key_id: str
    organization_id: str
    model: str
    worker_id: str
    node_id: str
    outcome: UsageOutcome
    started_at: _timestamp_pb2.Timestamp
    first_token_ms: int
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    streamed: bool
    status: int
    project_id: str
    deployment_id: str
    endpoint: str
    reserved_tokens: int
    reserved_money: int
    charged_tokens: int
    charged_money: int
    estimated: bool
    queue_ms: int
    inter_token_us: int
    continuations: int
    def __init__(self, request_id: _Optional[str] = ..., key_id: _Optional[str] = ..., organization_id: _Optional[str] = ..., model: _Optional[str] = ..., worker_id: _Optional[str] = ..., node_id: _Optional[str] = ..., outcome: _Optional[_Union[UsageOutcome, str]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_token_ms: _Optional[int] = ..., duration_ms: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., streamed: _Optional[bool] = ..., status: _Optional[int] = ..., project_id: _Optional[str] = ..., deployment_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., reserved_tokens: _Optional[int] = ..., reserved_money: _Optional[int] = ..., charged_tokens: _Optional[int] = ..., charged_money: _Optional[int] = ..., estimated: _Optional[bool] = ..., queue_ms: _Optional[int] = ..., inter_token_us: _Optional[int] = ..., continuations: _Optional[int] = ...) -> None: ...

class LeaseQuotaRequest(_message.Message):
    __slots__ = ("asks", "process", "start_id")
    ASKS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    START_ID_FIELD_NUMBER: _ClassVar[int]
    asks: _containers.RepeatedCompositeFieldContainer[QuotaAsk]
    process: int
    start_id: str
    def __init__(self, asks: _Optional[_Iterable[_Union[QuotaAsk, _Mapping]]] = ..., process: _Optional[int] = ..., start_id: _Optional[str] = ...) -> None: ...

class QuotaAsk(_message.Message):
    __slots__ = ("subject", "kind", "window", "wanted", "used")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    subject: str
    kind: QuotaKind
    window: int
    wanted: int
    used: int
    def __init__(self, subject: _Optional[str] = ..., kind: _Optional[_Union[QuotaKind, str]] = ..., window: _Optional[int] = ..., wanted: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class LeaseQuotaResponse(_message.Message):
    __slots__ = ("grants",)
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[QuotaGrant]
    def __init__(self, grants: _Optional[_Iterable[_Union[QuotaGrant, _Mapping]]] = ...) -> None: ...

class QuotaGrant(_message.Message):
    __slots__ = ("granted", "left", "lease_ms")
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    granted: int
    left: int
    lease_ms: int
    def __init__(self, granted: _Optional[int] = ..., left: _Optional[int] = ..., lease_ms: _Optional[int] = ...) -> None: ...

class WatchLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchLoadResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerLoad]
    def __init__(self, workers: _Optional[_Iterable[_Union[WorkerLoad, _Mapping]]] = ...) -> None: ...

class WorkerLoad(_message.Message):
    __slots__ = ("worker_id", "requests_running", "requests_waiting", "kv_cache_usage", "phase", "progress_percent", "detail")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    requests_running: int
    requests_waiting: int
    kv_cache_usage: float
    phase: _worker_pb2.WorkerPhase
    progress_percent: int
    detail: str
    def __init__(self, worker_id: _Optional[str] = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., kv_cache_usage: _Optional[float] = ..., phase: _Optional[_Union[_worker_pb2.WorkerPhase, str]] = ..., progress_percent: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class ReportDemandRequest(_message.Message):
    __slots__ = ("process", "models")
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    process: int
    models: _containers.RepeatedCompositeFieldContainer[ModelDemand]
    def __init__(self, process: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelDemand, _Mapping]]] = ...) -> None: ...

class ReportDemandResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelDemand(_message.Message):
    __slots__ = ("model", "waiting", "active", "admitted", "refused", "wait_mean_ms", "wait_p95_ms", "oldest_wait_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WAIT_MEAN_MS_FIELD_NUMBER: _ClassVar[int]
    WAIT_P95_MS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    waiting: int
    active: int
    admitted: int
    refused: int
    wait_mean_ms: int
    wait_p95_ms: int
    oldest_wait_ms: int
    def __init__(self, model: _Optional[str] = ..., waiting: _Optional[int] = ..., active: _Optional[int] = ..., admitted: _Optional[int] = ..., refused: _Optional[int] = ..., wait_mean_ms: _Optional[int] = ..., wait_p95_ms: _Optional[int] = ..., oldest_wait_ms: _Optional[int] = ...) -> None: ...
