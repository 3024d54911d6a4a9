"""Projects, what keys may do, prices, names and routes: from the operator's call to the gateway's snapshot."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from mesh.admin.v1 import api_key_pb2, deployment_pb2, model_pb2, project_pb2
from mesh.gateway.v1 import gateway_pb2
from mesh.types.v1 import worker_pb2
from tests.mesh.control_plane_clients import status_of
from tests.mesh.control_plane_harness import Plane

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
MISSING = (grpc.StatusCode.NOT_FOUND, "not_found")
TAKEN = (grpc.StatusCode.ALREADY_EXISTS, "already_exists")
IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "in_use")
SIMULATED = "simulator:seed=7,token_ms=5"
LIMITS = gateway_pb2.Limits(requests_per_minute=60, money_per_day=5 * 10**8)

BAD: list[tuple[str, str, Any]] = [
    ("projects.CreateProject", "organization", project_pb2.CreateProjectRequest(name="p")),
    ("projects.CreateProject", "name", project_pb2.CreateProjectRequest(organization="acme", name="a/b")),
    (
        "projects.CreateProject",
        "limits.tokens_per_day",
        project_pb2.CreateProjectRequest(
            organization="acme", name="p", limits=gateway_pb2.Limits(tokens_per_day=2**64 - 1)
        ),
    ),
    ("projects.GetProject", "project", project_pb2.GetProjectRequest()),
    ("projects.UpdateProject", "project", project_pb2.UpdateProjectRequest(project="a b")),
    (
        "projects.UpdateProject",
        "limits.requests_per_minute",
        project_pb2.UpdateProjectRequest(project="acme/p", limits=gateway_pb2.Limits(requests_per_minute=2**32)),
    ),
    ("projects.DeleteProject", "project", project_pb2.DeleteProjectRequest(project="'; --")),
    ("api_keys.CreateApiKey", "project", api_key_pb2.CreateApiKeyRequest(organization="acme", project="a b")),
    (
        "api_keys.CreateApiKey",
        "policy.weight",
        api_key_pb2.CreateApiKeyRequest(
            organization="acme", name="k", policy=api_key_pb2.ApiKeyPolicy(weight=1001)
        ),
    ),
    (
        "api_keys.UpdateApiKey",
        "policy.scopes",
        api_key_pb2.UpdateApiKeyRequest(key_id="k", policy=api_key_pb2.ApiKeyPolicy(scopes=["all"])),
    ),
    (
        "api_keys.UpdateApiKey",
        "policy.priority",
        api_key_pb2.UpdateApiKeyRequest(key_id="k", policy=api_key_pb2.ApiKeyPolicy(priority=9)),  # type: ignore[arg-type]
    ),
    (
        "models.CreateModel",
        "aliases",
        model_pb2.CreateModelRequest(name="m", source=SIMULATED, aliases=["m"]),
    ),
    ("models.CreateModel", "source", model_pb2.CreateModelRequest(name="m", source="simulator:seed")),
    (
        "models.CreateModel",
        "adapters[0].source",
        model_pb2.CreateModelRequest(name="m", source=SIMULATED, adapters=[worker_pb2.Adapter(name="fr")]),
    ),
    (
        "models.UpdateModel",
        "price.cached",
        model_pb2.UpdateModelRequest(model="real", price=gateway_pb2.Price(cached=2**63)),
    ),
    (
        "deployments.CreateDeployment",
        "engine",
        deployment_pb2.CreateDeploymentRequest(model="real", engine="simulator"),
    ),
    ("deployments.CreateDeployment", "engine", deployment_pb2.CreateDeploymentRequest(model="unreal")),
    (
        "deployments.CreateDeployment",
        "policy",
        deployment_pb2.CreateDeploymentRequest(model="real", policy=99),  # type: ignore[arg-type]
    ),
    (
        "deployments.UpdateDeployment",
        "pass_through",
        deployment_pb2.UpdateDeploymentRequest(deployment="d", pass_through=["/../x"]),
    ),
]
ABSENT: list[tuple[str, Any]] = [
    ("projects.CreateProject", project_pb2.CreateProjectRequest(organization="nobody", name="p")),
    ("projects.GetProject", project_pb2.GetProjectRequest(project="acme/none")),
    ("projects.UpdateProject", project_pb2.UpdateProjectRequest(project="acme/none")),
    ("projects.DeleteProject", project_pb2.DeleteProjectRequest(project="none")),
    ("api_keys.CreateApiKey", api_key_pb2.CreateApiKeyRequest(organization="acme", name="k", project="none")),
    ("api_keys.UpdateApiKey", api_key_pb2.UpdateApiKeyRequest(key_id="nokey")),
    ("models.UpdateModel", model_pb2.UpdateModelRequest(model="nomodel")),
    ("deployments.UpdateDeployment", deployment_pb2.UpdateDeploymentRequest(deployment="none")),
]


def call(plane: Plane, name: str, request: Any) -> Any:
    service, _, rpc = name.partition(".")
    return getattr(getattr(plane, service), rpc)(request)


async def until(
    snapshots: AsyncIterator[gateway_pb2.Snapshot], met: Callable[[gateway_pb2.Snapshot], Any]
) -> gateway_pb2.Snapshot:
    async for seen in snapshots:
        if met(seen):
            return seen
    raise AssertionError("the stream ended")


@pytest.mark.parametrize(("name", "field", "request_"), BAD, ids=lambda value: str(value).strip()[:40])
async def test_bad_input_is_refused_naming_the_field(plane: Plane, name: str, field: str, request_: Any) -> None:
    await plane.organization("acme")
    await plane.model("real")
    await plane.model("unreal", source=SIMULATED)
    asked = call(plane, name, request_)
    assert await status_of(asked) == INVALID
    assert (await asked.details()).startswith(f"{field}: ")


@pytest.mark.parametrize(("name", "request_"), ABSENT, ids=lambda value: str(value).strip()[:40])
async def test_what_is_not_there_is_not_found(plane: Plane, name: str, request_: Any) -> None:
    await plane.organization("acme")
    assert await status_of(call(plane, name, request_)) == MISSING


async def test_a_project_lives_and_its_limits_and_keys_reach_gateways(plane: Plane) -> None:
    await plane.organization("acme")
    make = project_pb2.CreateProjectRequest(organization="acme", name="apps", limits=LIMITS)
    made = (await plane.projects.CreateProject(make)).project
    assert (made.name, made.limits, made.charged_tokens) == ("apps", LIMITS, 0)
    assert await status_of(plane.projects.CreateProject(make)) == TAKEN
    snapshots = plane.watch("budget-gw")
    policy = api_key_pb2.ApiKeyPolicy(scopes=["chat"], allowed_models=["m"], limits=LIMITS, weight=3)
    key = (
        await plane.api_keys.CreateApiKey(
            api_key_pb2.CreateApiKeyRequest(organization="acme", name="k", project="apps", policy=policy)
        )
    ).api_key
    assert (key.project_id, key.prefix) == (made.project_id, f"inv-{key.key_id}")
    assert (key.policy.weight, key.policy.priority) == (3, gateway_pb2.PRIORITY_NORMAL)
    seen = await until(snapshots, lambda told: key.key_id in {one.key_id for one in told.api_keys})
    entry = next(one for one in seen.api_keys if one.key_id == key.key_id)
    assert (entry.project_id, list(entry.scopes), entry.limits) == (made.project_id, ["chat"], LIMITS)
    assert made.project_id in {one.project_id for one in seen.projects if one.limits == LIMITS}

    changed = await plane.api_keys.UpdateApiKey(api_key_pb2.UpdateApiKeyRequest(key_id=key.key_id))
    assert (list(changed.api_key.policy.scopes), changed.api_key.policy.weight) == ([], 1)
    less = gateway_pb2.Limits(concurrent_requests=0)
    update = project_pb2.UpdateProjectRequest(project="acme/apps", limits=less)
    assert (await plane.projects.UpdateProject(update)).project.limits == less
    await until(snapshots, lambda told: less in [one.limits for one in told.projects])
    listed = await plane.projects.ListProjects(project_pb2.ListProjectsRequest())
    found = await plane.projects.GetProject(project_pb2.GetProjectRequest(project="acme/apps"))
    assert found.project in listed.projects

    delete = project_pb2.DeleteProjectRequest(project=made.project_id)
    assert await status_of(plane.projects.DeleteProject(delete)) == IN_USE
    await plane.api_keys.DeleteApiKey(api_key_pb2.DeleteApiKeyRequest(key_id=key.key_id))
    await plane.projects.DeleteProject(delete)
    assert await status_of(plane.projects.DeleteProject(delete)) == MISSING
    actions = [row.action for row in await plane.audit() if row.object_ == f"project/{made.project_id}"]
    assert actions == ["project_deleted", "project_updated", "project_created"]


async def test_a_simulated_model_reaches_nodes_with_its_adapters_and_gateways_under_all_its_names(
    plane: Plane,
) -> None:
    node = await plane.connect(await plane.join())
    await node.welcome()
    adapter = worker_pb2.Adapter(name="sim-fr", source="simulator:seed=8")
    await plane.model("sim", source=SIMULATED, aliases=["best"], adapters=[adapter])
    assert (
        await status_of(plane.models.CreateModel(model_pb2.CreateModelRequest(name="best", source=SIMULATED)))
        == TAKEN
    )
    await plane.deploy("sim", engine="simulator", policy="ROUTING_POLICY_PREFIX", pass_through=["/v1/x"])
    [spec] = (await node.desired(lambda state: bool(state.workers))).workers
    assert (spec.engine, spec.source, list(spec.adapters)) == ("simulator", SIMULATED, [adapter])

    snapshots = plane.watch("names-gw", process=2, peer_endpoint="127.0.0.1:7460")
    seen = await until(snapshots, lambda told: [one.name for one in told.models].count("sim-fr"))
    models = {one.name: one for one in seen.models}
    assert list(models["sim"].aliases) == ["best"]
    assert (models["sim-fr"].base_model, models["sim-fr"].engine_name) == ("sim", "sim-fr")
    assert models["sim"].policy == models["sim-fr"].policy == gateway_pb2.ROUTING_POLICY_PREFIX
    assert [one.weight for one in models["sim-fr"].routes] == [1000]
    assert gateway_pb2.Peer(
        hub_id="names-gw~2", endpoint="127.0.0.1:7460", server_name="gateway.mesh.local"
    ) in list(seen.peers)
    await node.desired(lambda state: "names-gw~2" in {hub.hub_id for hub in state.hubs})

    price = gateway_pb2.Price(prompt=1, cached=2, completion=3)
    await plane.models.UpdateModel(model_pb2.UpdateModelRequest(model="sim", aliases=["other"], price=price))
    seen = await until(snapshots, lambda told: [one.price for one in told.models].count(price))
    assert [list(one.aliases) for one in seen.models if one.name == "sim"] == [["other"]]
    updated = await plane.deployments.UpdateDeployment(deployment_pb2.UpdateDeploymentRequest(deployment="sim"))
    assert len(updated.deployment.workers) == 1
    assert updated.deployment.policy == gateway_pb2.ROUTING_POLICY_PREFIX
    await until(snapshots, lambda told: not any(one.pass_through for one in told.models))
    await node.hang_up()


@pytest.mark.parametrize(("field", "value"), [("process", 64), ("peer_endpoint", "nowhere")])
async def test_a_process_that_cannot_be_is_refused(plane: Plane, field: str, value: Any) -> None:
    asked = plane.gateway().WatchSnapshot(
        gateway_pb2.WatchSnapshotRequest(**{"tunnel_endpoint": "h:1", field: value})
    )

    async def read() -> None:
        async for _ in asked:
            raise AssertionError("let in")

    assert await status_of(read()) == INVALID
    assert (await asked.details()).startswith(f"{field}: ")
