"""GET /v1/models and /v1/models/{name}: what the caller may use."""

from dataclasses import dataclass

import orjson

from gateway.api.auth import Door
from gateway.api.server import rest_of
from gateway.api.visit import Visit
from gateway.core.snapshot import Model
from gateway.tunnel.registry import Registry
from mesh.kit.errors import NotFound

PATH = "/v1/models"


@dataclass(frozen=True, slots=True)
class Models:
    """The handlers."""

    door: Door
    registry: Registry

    async def list(self, visit: Visit) -> None:
        """Models that a request would reach a worker of, now."""
        caller, snapshot = self.door.admit(visit, "models")
        ready = [
            model
            for model in snapshot.models_for(caller.organization_id)
            if caller.may_use(model) and self.registry.is_served(model)
        ]
        visit.answer(200, orjson.dumps({"object": "list", "data": [self._shown(model) for model in ready]}))

    async def get(self, visit: Visit) -> None:
        """One model, ready or not."""
        caller, snapshot = self.door.admit(visit, "models")
        name = rest_of(visit, f"{PATH}/")
        model = snapshot.model_for(caller.organization_id, name)
        if model is None or not caller.may_use(model):
            raise NotFound("model", name)
        visit.answer(200, orjson.dumps(self._shown(model)))

    def _shown(self, model: Model) -> dict[str, object]:
        shown: dict[str, object] = {
            "id": model.name,
            "object": "model",
            "created": int(model.created_at.timestamp()),
            "owned_by": model.organization_id or "inventiv-mesh",
            "ready": self.registry.is_served(model),
        }
        if model.context_length:
            shown["max_model_len"] = model.context_length
        if model.base_model:
            shown["parent"] = model.base_model
        return shown
