"""Keys of the OpenAI endpoint, as operators handle them."""

from dataclasses import asdict, dataclass

from control_plane.core import bounds
from control_plane.core.access import ApiKey as Key
from control_plane.rpc import convert_out
from control_plane.rpc.convert_limits import key_policy_in
from control_plane.rpc.desk import Context, Desk
from control_plane.store import api_keys, organizations, projects
from mesh.admin.v1 import api_key_pb2 as pb
from mesh.admin.v1.api_key_pb2_grpc import ApiKeyServiceServicer
from pki.api_keys import new_api_key


@dataclass(frozen=True)
class ApiKeyService(ApiKeyServiceServicer):
    """mesh.admin.v1.ApiKeyService."""

    desk: Desk
    pepper: bytes

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        owner = bounds.lookup("organization", request.organization)
        group = bounds.lookup("project", request.project) if request.project else ""
        policy = key_policy_in(request.policy)
        key = new_api_key()
        async with self.desk.change(context) as change:
            organization = await organizations.get(change.db, owner)
            owner_id = organization.organization_id
            made = bounds.api_key(
                key_id=key.id,
                organization_id=owner_id,
                name=request.name,
                ttl_s=request.ttl_s,
                now=change.now,
                project_id=(await projects.get_of(change.db, owner_id, group)).project_id if group else None,
                policy=policy,
            )
            await api_keys.record(change.db, made, mac=key.mac(self.pepper))
            await change.audit(
                "api_key_created",
                f"api_key/{made.key_id}",
                {"organization_id": made.organization_id, "name": made.name, **_facts(made)},
            )
        return pb.CreateApiKeyResponse(api_key=convert_out.api_key(made), secret_key=key.reveal())

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        async with self.desk.read() as db:
            found = await api_keys.list_(db)
        return pb.ListApiKeysResponse(api_keys=map(convert_out.api_key, found))

    async def GetApiKey(self, request: pb.GetApiKeyRequest, context: Context) -> pb.GetApiKeyResponse:
        wanted = bounds.lookup("key_id", request.key_id)
        async with self.desk.read() as db:
            found = await api_keys.get(db, wanted)
        return pb.GetApiKeyResponse(api_key=convert_out.api_key(found))

    async def UpdateApiKey(self, request: pb.UpdateApiKeyRequest, context: Context) -> pb.UpdateApiKeyResponse:
        wanted = bounds.lookup("key_id", request.key_id)
        policy = bounds.key_policy(key_policy_in(request.policy))
        async with self.desk.change(context) as change:
            changed = await api_keys.update(change.db, wanted, policy)
            await change.audit("api_key_updated", f"api_key/{changed.key_id}", _facts(changed))
        return pb.UpdateApiKeyResponse(api_key=convert_out.api_key(changed))

    async def DeleteApiKey(self, request: pb.DeleteApiKeyRequest, context: Context) -> pb.DeleteApiKeyResponse:
        wanted = bounds.lookup("key_id", request.key_id)
        async with self.desk.change(context) as change:
            gone = await api_keys.delete(change.db, wanted)
            await change.audit(
                "api_key_deleted", f"api_key/{gone.key_id}", {"organization_id": gone.organization_id}
            )
        return pb.DeleteApiKeyResponse()


def _facts(key: Key) -> dict[str, object]:
    return {"project_id": key.project_id, "policy": asdict(key.policy)}
