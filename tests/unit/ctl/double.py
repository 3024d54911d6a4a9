"""A control plane's admin API over real gRPC and mTLS, its rows in memory. It refuses as the real one refuses."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import grpc

from mesh.admin.v1 import (
    api_key_pb2,
    api_key_pb2_grpc,
    deployment_pb2,
    deployment_pb2_grpc,
    join_token_pb2,
    join_token_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    organization_pb2,
    organization_pb2_grpc,
    project_pb2,
    project_pb2_grpc,
)
from mesh.types.v1.worker_pb2 import (
    WORKER_PHASE_READY,
    WORKER_PHASE_STARTING,
)
from pki import __main__ as pki_command
from tests.unit.ctl.double_rows import Rows, refuse, stamp

PIN = "sha256:" + "ab" * 32


class Organizations(organization_pb2_grpc.OrganizationServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def CreateOrganization(self, request, context):
        self.rows.saw(request, context)
        if any(one.name == request.name for one in self.rows.organizations.values()):
            text = f"organization {request.name!r} exists already"
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "already_exists", text)
        made = organization_pb2.Organization(organization_id=str(uuid4()), name=request.name)
        stamp(made)
        self.rows.organizations[made.organization_id] = made
        return organization_pb2.CreateOrganizationResponse(organization=made)

    def ListOrganizations(self, request, context):
        self.rows.saw(request, context)
        return organization_pb2.ListOrganizationsResponse(organizations=self.rows.organizations.values())

    def GetOrganization(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.organizations, "organization", request.organization, context)
        return organization_pb2.GetOrganizationResponse(organization=found)

    def DeleteOrganization(self, request, context):
        self.rows.saw(request, context)
        row_id, found = self.rows.find(self.rows.organizations, "organization", request.organization, context)
        if any(key.organization_id == row_id for key in self.rows.keys.values()):
            text = f"organization {found.name!r} is in use by 1 key"
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "in_use", text)
        del self.rows.organizations[row_id]
        return organization_pb2.DeleteOrganizationResponse()


class Keys(api_key_pb2_grpc.ApiKeyServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def CreateApiKey(self, request, context):
        self.rows.saw(request, context)
        owner, _ = self.rows.find(self.rows.organizations, "organization", request.organization, context)
        key_id = uuid4().hex[:12]
        made = api_key_pb2.ApiKey(key_id=key_id, organization_id=owner, name=request.name, prefix=f"inv-{key_id}")
        made.policy.CopyFrom(request.policy)
        if request.project:
            made.project_id = self.rows.find(self.rows.projects, "project", request.project, context)[0]
        stamp(made)
        self.rows.keys[key_id] = made
        return api_key_pb2.CreateApiKeyResponse(api_key=made, secret_key=f"inv-{key_id}-{'s' * 43}")

    def ListApiKeys(self, request, context):
        self.rows.saw(request, context)
        return api_key_pb2.ListApiKeysResponse(api_keys=self.rows.keys.values())

    def GetApiKey(self, request, context):
        self.rows.saw(request, context)
        return api_key_pb2.GetApiKeyResponse(
            api_key=self.rows.find(self.rows.keys, "API key", request.key_id, context)[1]
        )

    def UpdateApiKey(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.keys, "API key", request.key_id, context)
        found.policy.CopyFrom(request.policy)
        return api_key_pb2.UpdateApiKeyResponse(api_key=found)

    def DeleteApiKey(self, request, context):
        self.rows.saw(request, context)
        del self.rows.keys[self.rows.find(self.rows.keys, "API key", request.key_id, context)[0]]
        return api_key_pb2.DeleteApiKeyResponse()


class Projects(project_pb2_grpc.ProjectServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def _find(self, text, context):
        return self.rows.find(self.rows.projects, "project", text.rpartition("/")[2], context)

    def CreateProject(self, request, context):
        self.rows.saw(request, context)
        owner, _ = self.rows.find(self.rows.organizations, "organization", request.organization, context)
        made = project_pb2.Project(
            project_id=str(uuid4()), organization_id=owner, name=request.name, limits=request.limits
        )
        stamp(made)
        self.rows.projects[made.project_id] = made
        return project_pb2.CreateProjectResponse(project=made)

    def ListProjects(self, request, context):
        self.rows.saw(request, context)
        return project_pb2.ListProjectsResponse(projects=self.rows.projects.values())

    def GetProject(self, request, context):
        self.rows.saw(request, context)
        return project_pb2.GetProjectResponse(project=self._find(request.project, context)[1])

    def UpdateProject(self, request, context):
        self.rows.saw(request, context)
        _, found = self._find(request.project, context)
        found.limits.CopyFrom(request.limits)
        return project_pb2.UpdateProjectResponse(project=found)

    def DeleteProject(self, request, context):
        self.rows.saw(request, context)
        del self.rows.projects[self._find(request.project, context)[0]]
        return project_pb2.DeleteProjectResponse()


class Tokens(join_token_pb2_grpc.JoinTokenServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def CreateJoinToken(self, request, context):
        self.rows.saw(request, context)
        owner, _ = self.rows.find(self.rows.organizations, "organization", request.organization, context)
        made = join_token_pb2.JoinToken(token_id=uuid4().hex[:12], organization_id=owner, uses_left=request.uses)
        stamp(made)
        made.expires_at.FromSeconds(made.created_at.seconds + request.ttl_s)
        self.rows.tokens[made.token_id] = made
        return join_token_pb2.CreateJoinTokenResponse(
            join_token=made, token=f"inv1_{made.token_id}_secret_crc", ca_pin=PIN, enroll_endpoint="127.0.0.1:7440"
        )

    def ListJoinTokens(self, request, context):
        self.rows.saw(request, context)
        return join_token_pb2.ListJoinTokensResponse(join_tokens=self.rows.tokens.values())

    def GetJoinToken(self, request, context):
        self.rows.saw(request, context)
        return join_token_pb2.GetJoinTokenResponse(
            join_token=self.rows.find(self.rows.tokens, "join token", request.token_id, context)[1]
        )

    def DeleteJoinToken(self, request, context):
        self.rows.saw(request, context)
        stamp(self.rows.find(self.rows.tokens, "join token", request.token_id, context)[1], "revoked_at")
        return join_token_pb2.DeleteJoinTokenResponse()


class Nodes(node_pb2_grpc.NodeServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def ListNodes(self, request, context):
        self.rows.saw(request, context)
        return node_pb2.ListNodesResponse(nodes=self.rows.nodes.values())

    def GetNode(self, request, context):
        self.rows.saw(request, context)
        return node_pb2.GetNodeResponse(node=self.rows.find(self.rows.nodes, "node", request.node_id, context)[1])

    def DeleteNode(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.nodes, "node", request.node_id, context)
        found.state = node_pb2.NODE_STATE_REVOKED
        return node_pb2.DeleteNodeResponse()


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def CreateModel(self, request, context):
        self.rows.saw(request, context)
        if not request.source.startswith(("package:", "file:///", "simulator:")):
            text = 'source: must be "package:<python package>/<file>" or "file:///<absolute path>"'
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "invalid_input", text)
        made = model_pb2.Model(
            model_id=str(uuid4()),
            name=request.name,
            source=request.source,
            context_length=request.context_length,
            memory_bytes=request.memory_bytes,
            vram_bytes=request.vram_bytes,
            gpu_count=request.gpu_count,
            aliases=request.aliases,
            price=request.price,
            adapters=request.adapters,
        )
        stamp(made)
        self.rows.models[made.model_id] = made
        return model_pb2.CreateModelResponse(model=made)

    def ListModels(self, request, context):
        self.rows.saw(request, context)
        return model_pb2.ListModelsResponse(models=self.rows.models.values())

    def GetModel(self, request, context):
        self.rows.saw(request, context)
        return model_pb2.GetModelResponse(
            model=self.rows.find(self.rows.models, "model", request.model, context)[1]
        )

    def UpdateModel(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.models, "model", request.model, context)
        found.aliases[:] = request.aliases
        found.price.CopyFrom(request.price)
        return model_pb2.UpdateModelResponse(model=found)

    def DeleteModel(self, request, context):
        self.rows.saw(request, context)
        del self.rows.models[self.rows.find(self.rows.models, "model", request.model, context)[0]]
        return model_pb2.DeleteModelResponse()


class Deployments(deployment_pb2_grpc.DeploymentServiceServicer):
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def CreateDeployment(self, request, context):
        self.rows.saw(request, context)
        _, model = self.rows.find(self.rows.models, "model", request.model, context)
        made = deployment_pb2.Deployment(
            deployment_id=str(uuid4()),
            name=request.name or model.name,
            model=model.name,
            engine=request.engine,
            replicas=request.replicas,
            slots=request.slots,
            policy=request.policy,
            pass_through=request.pass_through,
        )
        stamp(made)
        self.rows.deployments[made.deployment_id] = made
        return deployment_pb2.CreateDeploymentResponse(deployment=made)

    def ListDeployments(self, request, context):
        self.rows.saw(request, context)
        return deployment_pb2.ListDeploymentsResponse(deployments=self.rows.deployments.values())

    def GetDeployment(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.deployments, "deployment", request.deployment, context)
        if self.rows.phases:
            del found.workers[:]
            for number, (phase, percent) in enumerate(self.rows.phases.pop(0)):
                found.workers.add(
                    worker_id=f"worker-{number:08}",
                    node_id="node-1",
                    phase=phase,
                    progress_percent=percent,
                    detail="loading weights" if phase == WORKER_PHASE_STARTING else "",
                )
        return deployment_pb2.GetDeploymentResponse(deployment=found)

    def UpdateDeployment(self, request, context):
        self.rows.saw(request, context)
        _, found = self.rows.find(self.rows.deployments, "deployment", request.deployment, context)
        found.policy = request.policy or found.policy
        found.pass_through[:] = request.pass_through
        return deployment_pb2.UpdateDeploymentResponse(deployment=found)

    def DeleteDeployment(self, request, context):
        self.rows.saw(request, context)
        row_id, _ = self.rows.find(self.rows.deployments, "deployment", request.deployment, context)
        del self.rows.deployments[row_id]
        return deployment_pb2.DeleteDeploymentResponse()


READY = (WORKER_PHASE_READY, 100)
LOADING = (WORKER_PHASE_STARTING, 40)


def make_identities(folder: Path) -> None:
    """pki/ with the authorities, control-plane/ and operator/ with what they issued, by the real command."""
    assert pki_command.main(["init", "--dir", str(folder / "pki")]) == 0
    for kind in ("control-plane", "operator", "gateway"):
        issue = ["issue", kind, "--id", "test", "--dir", str(folder / "pki"), "--out", str(folder / kind)]
        assert pki_command.main(issue) == 0


class AdminDouble:
    """The listener. ``endpoint`` is where it is; ``rows`` what it knows."""

    def __init__(self, identities: Path) -> None:
        self.rows = Rows()
        self.server = grpc.server(ThreadPoolExecutor(4))
        organization_pb2_grpc.add_OrganizationServiceServicer_to_server(Organizations(self.rows), self.server)
        api_key_pb2_grpc.add_ApiKeyServiceServicer_to_server(Keys(self.rows), self.server)
        project_pb2_grpc.add_ProjectServiceServicer_to_server(Projects(self.rows), self.server)
        join_token_pb2_grpc.add_JoinTokenServiceServicer_to_server(Tokens(self.rows), self.server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(Nodes(self.rows), self.server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(self.rows), self.server)
        deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(Deployments(self.rows), self.server)
        ca = identities / "pki"
        credentials = grpc.ssl_server_credentials(
            [
                (
                    (identities / "control-plane/tls.key").read_bytes(),
                    (identities / "control-plane/tls.crt").read_bytes(),
                )
            ],
            (ca / "operator-ca.crt").read_bytes() + (ca / "root.crt").read_bytes(),
            require_client_auth=True,
        )
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.endpoint = f"127.0.0.1:{self.port}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()
