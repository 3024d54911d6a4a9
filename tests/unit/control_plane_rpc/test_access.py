"""Who may call what is written down for every method that is served, and for no other."""

from typing import Any

import pytest

from control_plane.rpc import access
from control_plane.rpc.services import Parts, services
from mesh.admin.v1 import (
    api_key_pb2,
    deployment_pb2,
    join_token_pb2,
    model_pb2,
    organization_pb2,
    project_pb2,
)
from mesh.admin.v1 import node_pb2 as admin_node_pb2
from mesh.enroll.v1 import enroll_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.node.v1 import node_pb2
from pki.names import Kind
from pki.peer import ANONYMOUS
from pki.policy import Role
from tests.fakes.pki import Mesh

TABLES = {"enroll": access.ENROLL, "node": access.NODE, "gateway": access.GATEWAY, "admin": access.ADMIN}
FILES = {
    "enroll": [enroll_pb2],
    "node": [node_pb2],
    "gateway": [gateway_pb2],
    "admin": [
        organization_pb2,
        project_pb2,
        api_key_pb2,
        join_token_pb2,
        admin_node_pb2,
        model_pb2,
        deployment_pb2,
    ],
}


class RecordingServer:
    """Takes registrations as a server does, and remembers the methods."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same methods again, for servers that do not know registered ones."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{name}" for name in handlers}


@pytest.fixture(scope="module")
def served() -> dict[str, set[str]]:
    parts: dict[str, Any] = dict.fromkeys(Parts.__dataclass_fields__)
    parts["authority"] = Mesh().authorities[Role.NODE]
    found = {}
    for name, register in services(Parts(**parts)).items():
        register(server := RecordingServer())  # type: ignore[arg-type]  # as much of a server as is used
        found[name] = server.methods
    return found


@pytest.mark.parametrize("listener", TABLES)
def test_every_method_served_has_a_row_and_every_row_a_method(listener: str, served: dict[str, set[str]]) -> None:
    assert served[listener] == set(TABLES[listener])


@pytest.mark.parametrize("listener", TABLES)
def test_every_method_of_the_schema_is_served(listener: str, served: dict[str, set[str]]) -> None:
    in_schema = {
        f"/{service.full_name}/{method.name}"
        for file in FILES[listener]
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert served[listener] == in_schema


def test_only_the_enroll_listener_lets_anyone_in() -> None:
    assert {name for name, allowed in access.ACCESS.items() if allowed is ANONYMOUS} == set(access.ENROLL)


def test_each_listener_is_for_one_kind_of_caller() -> None:
    for listener, kind in (("node", Kind.NODE), ("gateway", Kind.GATEWAY), ("admin", Kind.OPERATOR)):
        assert set(TABLES[listener].values()) == {frozenset({kind})}
