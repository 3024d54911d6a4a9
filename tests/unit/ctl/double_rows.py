"""What the admin API's double knows and was asked, and how it refuses."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from mesh.admin.v1 import (
        api_key_pb2,
        deployment_pb2,
        join_token_pb2,
        model_pb2,
        node_pb2,
        organization_pb2,
        project_pb2,
    )


def refuse(context: grpc.ServicerContext, status: grpc.StatusCode, code: str, text: str) -> None:
    context.set_trailing_metadata((("mesh-reason", code),))
    context.abort(status, text)


def stamp(message, field: str = "created_at") -> None:
    getattr(message, field).FromDatetime(datetime.now(UTC))


class Rows:
    """What the double knows, and what it was asked."""

    def __init__(self) -> None:
        self.organizations: dict[str, organization_pb2.Organization] = {}
        self.projects: dict[str, project_pb2.Project] = {}
        self.keys: dict[str, api_key_pb2.ApiKey] = {}
        self.tokens: dict[str, join_token_pb2.JoinToken] = {}
        self.nodes: dict[str, node_pb2.Node] = {}
        self.models: dict[str, model_pb2.Model] = {}
        self.deployments: dict[str, deployment_pb2.Deployment] = {}
        self.asked: list[object] = []
        self.refuse_next: tuple[grpc.StatusCode, str, str] | None = None
        # Each GetDeployment takes the next of these as the phases of its workers.
        self.phases: list[list[tuple[int, int]]] = []

    def saw(self, request: object, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        if self.refuse_next is not None:
            refusal, self.refuse_next = self.refuse_next, None
            refuse(context, *refusal)

    @staticmethod
    def find(rows: dict, kind: str, key: str, context: grpc.ServicerContext):
        for row_id, row in rows.items():
            if key in (row_id, getattr(row, "name", "")):
                return row_id, row
        refuse(context, grpc.StatusCode.NOT_FOUND, "not_found", f"no {kind} {key!r}")
        raise AssertionError
