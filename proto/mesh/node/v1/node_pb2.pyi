import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from mesh.types.v1 import machine_pb2 as _machine_pb2
from mesh.types.v1 import worker_pb2 as _worker_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectRequest(_message.Message):
    __slots__ = ("hello", "report")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    report: Report
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("welcome", "desired_state")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    desired_state: DesiredState
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., desired_state: _Optional[_Union[DesiredState, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("agent_info", "hardware", "capabilities", "applied_revision", "workers", "last_epoch")
    AGENT_INFO_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    agent_info: _machine_pb2.AgentInfo
    hardware: _machine_pb2.Hardware
    capabilities: _containers.RepeatedScalarFieldContainer[int]
    applied_revision: int
    workers: _containers.RepeatedCompositeFieldContainer[_worker_pb2.WorkerStatus]
    last_epoch: int
    def __init__(self, agent_info: _Optional[_Union[_machine_pb2.AgentInfo, _Mapping]] = ..., hardware: _Optional[_Union[_machine_pb2.Hardware, _Mapping]] = ..., capabilities: _Optional[_Iterable[int]] = ..., applied_revision: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[_worker_pb2.WorkerStatus, _Mapping]]] = ..., last_epoch: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("epoch", "server_time", "heartbeat_interval_s")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    server_time: _timestamp_pb2.Timestamp
    heartbeat_interval_s: int
    def __init__(self, epoch: _Optional[int] = ..., server_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., heartbeat_interval_s: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("sequence", "observed_at", "applied_revision", "workers", "agent_info", "host", "gpus")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_AT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    AGENT_INFO_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    observed_at: _timestamp_pb2.Timestamp
    applied_revision: int
    workers: _containers.RepeatedCompositeFieldContainer[_worker_pb2.WorkerStatus]
    agent_info: _machine_pb2.AgentInfo
    host: _machine_pb2.HostSample
    gpus: _containers.RepeatedCompositeFieldContainer[_machine_pb2.GpuSample]
    def __init__(self, sequence: _Optional[int] = ..., observed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., applied_revision: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[_worker_pb2.WorkerStatus, _Mapping]]] = ..., agent_info: _Optional[_Union[_machine_pb2.AgentInfo, _Mapping]] = ..., host: _Optional[_Union[_machine_pb2.HostSample, _Mapping]] = ..., gpus: _Optional[_Iterable[_Union[_machine_pb2.GpuSample, _Mapping]]] = ...) -> None: ...

class DesiredState(_message.Message):
    __slots__ = ("revision", "workers", "hubs")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    HUBS_FIELD_NUMBER: _ClassVar[int]
    revision: int
    workers: _containers.RepeatedCompositeFieldContainer[_worker_pb2.WorkerSpec]
    hubs: _containers.RepeatedCompositeFieldContainer[Hub]
    def __init__(self, revision: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[_worker_pb2.WorkerSpec, _Mapping]]] = ..., hubs: _Optional[_Iterable[_Union[Hub, _Mapping]]] = ...) -> None: ...

class Hub(_message.Message):
    __slots__ = ("hub_id", "endpoint", "server_name")
    HUB_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    hub_id: str
    endpoint: str
    server_name: str
    def __init__(self, hub_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., server_name: _Optional[str] = ...) -> None: ...
