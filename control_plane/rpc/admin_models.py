"""Models, as operators handle them."""

from dataclasses import asdict, dataclass, replace

from control_plane.core import bounds
from control_plane.core.model import Model
from control_plane.rpc import convert_out
from control_plane.rpc.convert_limits import adapters_in, price_in
from control_plane.rpc.desk import Context, Desk
from control_plane.store import models
from mesh.admin.v1 import model_pb2 as pb
from mesh.admin.v1.model_pb2_grpc import ModelServiceServicer
from mesh.kit.ids import ModelId, uuid7


@dataclass(frozen=True)
class ModelService(ModelServiceServicer):
    """mesh.admin.v1.ModelService."""

    desk: Desk

    async def CreateModel(self, request: pb.CreateModelRequest, context: Context) -> pb.CreateModelResponse:
        now = self.desk.clock.now()
        made = bounds.model(
            model_id=ModelId(uuid7(now)),
            name=request.name,
            source=request.source,
            context_length=request.context_length,
            memory_bytes=request.memory_bytes,
            vram_bytes=request.vram_bytes,
            gpu_count=request.gpu_count,
            now=now,
            aliases=request.aliases,
            price=price_in(request.price),
            adapters=adapters_in(request.adapters),
        )
        async with self.desk.change(context) as change:
            await models.record(change.db, made)
            await change.audit(
                "model_created",
                f"model/{made.model_id}",
                {"name": made.name, "source": made.source, **_facts(made)},
            )
        return pb.CreateModelResponse(model=convert_out.model(made))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        async with self.desk.read() as db:
            found = await models.list_(db)
        return pb.ListModelsResponse(models=map(convert_out.model, found))

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        wanted = bounds.lookup("model", request.model)
        async with self.desk.read() as db:
            found = await models.get(db, wanted)
        return pb.GetModelResponse(model=convert_out.model(found))

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Context) -> pb.UpdateModelResponse:
        wanted = bounds.lookup("model", request.model)
        price = bounds.model_price(price_in(request.price))
        async with self.desk.change(context) as change:
            found = await models.get(change.db, wanted)
            changed = replace(found, price=price, aliases=bounds.model_aliases(request.aliases, found))
            await models.update(change.db, changed)
            await change.audit(
                "model_updated", f"model/{changed.model_id}", {"name": changed.name, **_facts(changed)}
            )
        return pb.UpdateModelResponse(model=convert_out.model(changed))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        wanted = bounds.lookup("model", request.model)
        async with self.desk.change(context) as change:
            gone = await models.delete(change.db, wanted)
            await change.audit("model_deleted", f"model/{gone.model_id}", {"name": gone.name})
        return pb.DeleteModelResponse()


def _facts(model: Model) -> dict[str, object]:
    return {
        "aliases": list(model.aliases),
        "price": asdict(model.price),
        "adapters": [asdict(one) for one in model.adapters],
    }
