from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerPhase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_PHASE_UNSPECIFIED: _ClassVar[WorkerPhase]
    WORKER_PHASE_PENDING: _ClassVar[WorkerPhase]
    WORKER_PHASE_STARTING: _ClassVar[WorkerPhase]
    WORKER_PHASE_WARMING: _ClassVar[WorkerPhase]
    WORKER_PHASE_READY: _ClassVar[WorkerPhase]
    WORKER_PHASE_DRAINING: _ClassVar[WorkerPhase]
    WORKER_PHASE_FAILED: _ClassVar[WorkerPhase]
WORKER_PHASE_UNSPECIFIED: WorkerPhase
WORKER_PHASE_PENDING: WorkerPhase
WORKER_PHASE_STARTING: WorkerPhase
WORKER_PHASE_WARMING: WorkerPhase
WORKER_PHASE_READY: WorkerPhase
WORKER_PHASE_DRAINING: WorkerPhase
WORKER_PHASE_FAILED: WorkerPhase

class WorkerSpec(_message.Message):
    __slots__ = ("worker_id", "deployment_id", "model", "engine", "source", "context_length", "slots", "memory_bytes", "gpu_uuids", "spec_hash", "adapters")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_UUIDS_FIELD_NUMBER: _ClassVar[int]
    SPEC_HASH_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    deployment_id: str
    model: str
    engine: str
    source: str
    context_length: int
    slots: int
    memory_bytes: int
    gpu_uuids: _containers.RepeatedScalarFieldContainer[str]
    spec_hash: str
    adapters: _containers.RepeatedCompositeFieldContainer[Adapter]
    def __init__(self, worker_id: _Optional[str] = ..., deployment_id: _Optional[str] = ..., model: _Optional[str] = ..., engine: _Optional[str] = ..., source: _Optional[str] = ..., context_length: _Optional[int] = ..., slots: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_uuids: _Optional[_Iterable[str]] = ..., spec_hash: _Optional[str] = ..., adapters: _Optional[_Iterable[_Union[Adapter, _Mapping]]] = ...) -> None: ...

class Adapter(_message.Message):
    __slots__ = ("name", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    source: str
    def __init__(self, name: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker_id", "spec_hash", "phase", "progress_percent", "detail", "starts", "adopted", "requests_running", "requests_waiting", "kv_cache_usage")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_HASH_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_PERCENT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    spec_hash: str
    phase: WorkerPhase
    progress_percent: int
    detail: str
    starts: int
    adopted: bool
    requests_running: int
    requests_waiting: int
    kv_cache_usage: float
    def __init__(self, worker_id: _Optional[str] = ..., spec_hash: _Optional[str] = ..., phase: _Optional[_Union[WorkerPhase, str]] = ..., progress_percent: _Optional[int] = ..., detail: _Optional[str] = ..., starts: _Optional[int] = ..., adopted: _Optional[bool] = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., kv_cache_usage: _Optional[float] = ...) -> None: ...
