from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("token", "csr_der", "hostname", "agent_version")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr_der: bytes
    hostname: str
    agent_version: str
    def __init__(self, token: _Optional[str] = ..., csr_der: _Optional[bytes] = ..., hostname: _Optional[str] = ..., agent_version: _Optional[str] = ...) -> None: ...

class JoinResponse(_message.Message):
    __slots__ = ("node_id", "certificate_chain_pem", "trust_bundle_pem", "node_endpoint", "control_plane_server_name")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    TRUST_BUNDLE_PEM_FIELD_NUMBER: _ClassVar[int]
    NODE_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_PLANE_SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    certificate_chain_pem: str
    trust_bundle_pem: str
    node_endpoint: str
    control_plane_server_name: str
    def __init__(self, node_id: _Optional[str] = ..., certificate_chain_pem: _Optional[str] = ..., trust_bundle_pem: _Optional[str] = ..., node_endpoint: _Optional[str] = ..., control_plane_server_name: _Optional[str] = ...) -> None: ...

class GetTrustBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTrustBundleResponse(_message.Message):
    __slots__ = ("trust_bundle_pem", "trust_domain")
    TRUST_BUNDLE_PEM_FIELD_NUMBER: _ClassVar[int]
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    trust_bundle_pem: str
    trust_domain: str
    def __init__(self, trust_bundle_pem: _Optional[str] = ..., trust_domain: _Optional[str] = ...) -> None: ...
