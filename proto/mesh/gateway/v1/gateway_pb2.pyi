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

class UsageOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_OUTCOME_UNSPECIFIED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_COMPLETED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_FAILED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_CANCELLED: _ClassVar[UsageOutcome]
    USAGE_OUTCOME_INTERRUPTED: _ClassVar[UsageOutcome]
USAGE_OUTCOME_UNSPECIFIED: UsageOutcome
USAGE_OUTCOME_COMPLETED: UsageOutcome
USAGE_OUTCOME_FAILED: UsageOutcome
USAGE_OUTCOME_CANCELLED: UsageOutcome
USAGE_OUTCOME_INTERRUPTED: UsageOutcome

class WatchSnapshotRequest(_message.Message):
    __slots__ = ("tunnel_endpoint", "version")
    TUNNEL_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tunnel_endpoint: str
    version: str
    def __init__(self, tunnel_endpoint: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class WatchSnapshotResponse(_message.Message):
    __slots__ = ("snapshot",)
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    snapshot: Snapshot
    def __init__(self, snapshot: _Optional[_Union[Snapshot, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("revision", "key_pepper", "api_keys", "models", "revoked_nodes")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KEY_PEPPER_FIELD_NUMBER: _ClassVar[int]
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_NODES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    key_pepper: bytes
    api_keys: _containers.RepeatedCompositeFieldContainer[ApiKey]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    revoked_nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, revision: _Optional[int] = ..., key_pepper: _Optional[bytes] = ..., api_keys: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., revoked_nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("key_id", "secret_mac", "organization_id", "expires_at")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_MAC_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    secret_mac: bytes
    organization_id: str
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, key_id: _Optional[str] = ..., secret_mac: _Optional[bytes] = ..., organization_id: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "organization_id", "created_at", "context_length", "routes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    organization_id: str
    created_at: _timestamp_pb2.Timestamp
    context_length: int
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    def __init__(self, name: _Optional[str] = ..., organization_id: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., context_length: _Optional[int] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("worker_id", "node_id", "deployment_id", "engine", "slots", "phase")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    node_id: str
    deployment_id: str
    engine: str
    slots: int
    phase: _worker_pb2.WorkerPhase
    def __init__(self, worker_id: _Optional[str] = ..., node_id: _Optional[str] = ..., deployment_id: _Optional[str] = ..., engine: _Optional[str] = ..., slots: _Optional[int] = ..., phase: _Optional[_Union[_worker_pb2.WorkerPhase, str]] = ...) -> None: ...

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
    __slots__ = ("request_id", "key_id", "organization_id", "model", "worker_id", "node_id", "outcome", "started_at", "first_token_ms", "duration_ms", "prompt_tokens", "completion_tokens", "cached_tokens", "streamed", "status")
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
    def __init__(self, request_id: _Optional[str] = ..., key_id: _Optional[str] = ..., organization_id: _Optional[str] = ..., model: _Optional[str] = ..., worker_id: _Optional[str] = ..., node_id: _Optional[str] = ..., outcome: _Optional[_Union[UsageOutcome, str]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_token_ms: _Optional[int] = ..., duration_ms: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., streamed: _Optional[bool] = ..., status: _Optional[int] = ...) -> None: ...
