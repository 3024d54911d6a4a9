"""GET /v1/models and /v1/models/{name}: what the caller may use."""

from dataclasses import dataclass

import orjson
from aiohttp import web

from gateway.api.auth import Door
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

    async def list(self, visit: Visit) -> web.StreamResponse:
        """Models that a request would reach a worker of, now."""
        caller, snapshot = self.door.admit(visit)
        ready = [model for model in snapshot.models_for(caller.organization_id) if self._is_ready(model)]
        return _json(visit, {"object": "list", "data": [self._shown(model) for model in ready]})

    async def get(self, visit: Visit, name: str) -> web.StreamResponse:
        """One model, ready or not."""
        caller, snapshot = self.door.admit(visit)
        model = snapshot.model_for(caller.organization_id, name)
        if model is None:
            raise NotFound("model", name)
        return _json(visit, self._shown(model))

    def _shown(self, model: Model) -> dict[str, object]:
        shown: dict[str, object] = {
            "id": model.name,
            "object": "model",
            "created": int(model.created_at.timestamp()),
            "owned_by": model.organization_id or "inventiv-mesh",
            "ready": self._is_ready(model),
        }
        if model.context_length:
            shown["max_model_len"] = model.context_length
        return shown

    def _is_ready(self, model: Model) -> bool:
        return self.registry.choose(model.routes) is not None


def _json(visit: Visit, value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json", headers=visit.headers)
