"""Who may call what, in one table. What is not in it may be called by nobody.

A test enumerates every method of every service this process registers and fails on a missing or surplus row.
"""

from collections.abc import Mapping

from pki.names import Kind
from pki.peer import ANONYMOUS, Allowed

_NODE = frozenset({Kind.NODE})
_GATEWAY = frozenset({Kind.GATEWAY})
_OPERATOR = frozenset({Kind.OPERATOR})


def _all(service: str, methods: str, kinds: Allowed) -> dict[str, Allowed]:
    return {f"/{service}/{method}": kinds for method in methods.split()}


# No certificate is asked for: only the enroll listener has such methods.
ENROLL = _all("mesh.enroll.v1.EnrollService", "Join GetTrustBundle", ANONYMOUS)
NODE = _all("mesh.node.v1.NodeService", "Connect", _NODE)
GATEWAY = _all(
    "mesh.gateway.v1.GatewayService",
    "WatchSnapshot ReportUsage LeaseQuota WatchLoad ReportDemand",
    _GATEWAY,
)
ADMIN = {
    **_all(
        "mesh.admin.v1.OrganizationService",
        "CreateOrganization ListOrganizations GetOrganization DeleteOrganization",
        _OPERATOR,
    ),
    **_all(
        "mesh.admin.v1.ApiKeyService",
        "CreateApiKey ListApiKeys GetApiKey UpdateApiKey DeleteApiKey",
        _OPERATOR,
    ),
    **_all(
        "mesh.admin.v1.ProjectService",
        "CreateProject ListProjects GetProject UpdateProject DeleteProject",
        _OPERATOR,
    ),
    **_all(
        "mesh.admin.v1.JoinTokenService",
        "CreateJoinToken ListJoinTokens GetJoinToken DeleteJoinToken",
        _OPERATOR,
    ),
    **_all("mesh.admin.v1.NodeService", "ListNodes GetNode DeleteNode", _OPERATOR),
    **_all("mesh.admin.v1.ModelService", "CreateModel ListModels GetModel UpdateModel DeleteModel", _OPERATOR),
    **_all(
        "mesh.admin.v1.DeploymentService",
        "CreateDeployment ListDeployments GetDeployment UpdateDeployment DeleteDeployment",
        _OPERATOR,
    ),
}

ACCESS: Mapping[str, Allowed] = {**ENROLL, **NODE, **GATEWAY, **ADMIN}
