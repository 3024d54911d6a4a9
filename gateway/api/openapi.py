"""GET /openapi.json: what this gateway serves, as an OpenAPI 3.1 document. Made once, of the tables that serve it.

Requests are described as far as we read them; all other fields go on to the engine as they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson

from gateway.api import models
from gateway.api.errors import CLIENT_LEFT, SHAPES
from gateway.api.inference import MAX_WAIT_S
from gateway.api.visit import REQUEST_ID, Visit
from gateway.core.affinity import MAX_SESSION
from gateway.core.endpoints import ENDPOINTS, Body, Counts, Endpoint
from gateway.core.request import MAX_CHOICES, MAX_MODEL_NAME
from mesh.kit.errors import NotFound, PermissionDenied, Unauthenticated

PATH: Final = "/openapi.json"

Part = dict[str, object]

_SAID: Final = {
    NotFound.code: "model_not_found",
    Unauthenticated.code: "invalid_api_key",
    PermissionDenied.code: "scope_missing",
}
"""Errors that are shown with a code of their own."""
_OF_HTTP: Final = {400: "bad_request", 408: "bad_request", 431: "bad_request", 500: "internal", 505: "bad_request"}
"""What is answered to octets that are no request, and to what nobody expected."""
_OF_ENGINES: Final = 422  # refused by the engine, in its own words
_EVERYWHERE: Final = (400, 408, 431, 500, 503, 505)
_OF_KEYS: Final = (401, 403)
_RETRIED: Final = (429, 502, 503)

_ANY_TEXT: Final[Part] = {"type": ["string", "array"]}
_FIELDS: Final[Mapping[str, Part]] = {
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["role"],
            "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array", "null"]}},
        },
    },
    "prompt": _ANY_TEXT,
    "input": _ANY_TEXT,
    "query": {"type": ["string", "array", "object"]},
    "file": {"type": "string", "contentMediaType": "application/octet-stream"},
}
"""The fields of which an endpoint needs one."""
_FLAG: Final[Part] = {"type": ["boolean", "null"]}
_COUNT: Final[Part] = {"type": ["integer", "null"], "minimum": 1}
_KINDS_OF_SOUND: Final = ("application/json", "text/plain", "text/vtt", "application/x-subrip")
_OBJECT: Final[Part] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class OpenApi:
    """The handler. ``octets``: the document."""

    octets: bytes

    async def show(self, visit: Visit) -> None:
        """For everyone: it holds nothing that is not in the source."""
        visit.answer(200, self.octets)


def made(version: str) -> OpenApi:
    """The handler with the document of this version."""
    return OpenApi(orjson.dumps(document(version)))


def document(version: str) -> Part:
    """The document."""
    paths: dict[str, Part] = {path: {"post": _posted(endpoint)} for path, endpoint in ENDPOINTS.items()}
    model = _ref("schemas", "Model")
    listed: Part = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": model}},
    }
    paths[models.PATH] = {"get": _got("listModels", "Models that a worker is ready for, now.", listed, keyed=True)}
    named = _got("getModel", "One model, ready or not.", model, keyed=True, may_be_unknown=True)
    named["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths[f"{models.PATH}/{{model}}"] = {"get": named}
    health = _ref("schemas", "Health")
    paths["/healthz"] = {"get": _got("healthz", "The process lives.", health)}
    ready = _got("readyz", "It can serve; 503 says why it cannot.", health)
    _responses(ready)["503"] = _response("Not ready.", {"application/json": {"schema": health}})
    paths["/readyz"] = {"get": ready}
    paths[PATH] = {"get": _got("openapi", "This document.", _OBJECT)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Inventiv Mesh",
            "version": version,
            "description": "One OpenAI-compatible endpoint in front of many engines. Paths that a deployment "
            "declares beside these are served as its engine serves them.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": _headers(),
            "parameters": _parameters(),
            "responses": {f"E{status}": _refusal(status, codes) for status, codes in sorted(_codes().items())},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _posted(endpoint: Endpoint) -> Part:
    kinds = _KINDS_OF_SOUND if endpoint.any_kind else ("application/json",)
    content: dict[str, Part] = {kind: {"schema": _answer(endpoint, kind)} for kind in kinds}
    if endpoint.streams:
        content["text/event-stream"] = {
            "schema": {"description": "Server-sent events, each as its engine writes it."}
        }
    kind = "multipart/form-data" if endpoint.body is Body.MULTIPART else "application/json"
    statuses = {*_EVERYWHERE, *_OF_KEYS, *_codes()}
    return {
        "operationId": endpoint.path.strip("/").replace("/", "_"),
        "tags": [endpoint.scope],
        "description": f"Needs a key with the scope {endpoint.scope!r}, or with none at all.",
        "parameters": [_ref("parameters", name) for name in _parameters()],
        "requestBody": {"required": True, "content": {kind: {"schema": _request(endpoint)}}},
        "responses": {
            "200": _response("The engine's answer.", content, limited=True),
            **_refusals(statuses),
        },
    }


def _got(name: str, says: str, schema: Part, *, keyed: bool = False, may_be_unknown: bool = False) -> Part:
    statuses = {*_EVERYWHERE, *(_OF_KEYS if keyed else ()), *((404,) if may_be_unknown else ())}
    return {
        "operationId": name,
        "description": says,
        **({} if keyed else {"security": []}),
        "responses": {
            "200": _response(says, {"application/json": {"schema": schema}}),
            **_refusals(statuses),
        },
    }


def _request(endpoint: Endpoint) -> Part:
    """What we read of a body."""
    fields: dict[str, Part] = {"model": {"type": "string", "minLength": 1, "maxLength": MAX_MODEL_NAME}}
    form = endpoint.body is Body.MULTIPART
    if endpoint.required:
        fields[endpoint.required] = _FIELDS[endpoint.required]
    if endpoint.streams:
        fields["stream"] = {"type": "string", "enum": ["true", "false"]} if form else _FLAG
    if endpoint.include_usage:
        options = {"include_usage": _FLAG, "continuous_usage_stats": _FLAG}
        fields["stream_options"] = {
            "type": ["object", "null"],
            "properties": options,
            "description": "Only with stream: true.",
        }
        fields["timings_per_token"] = _FLAG
    if endpoint.generates:
        fields["n"] = {**_COUNT, "maximum": MAX_CHOICES}
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            fields[name] = _COUNT
    needed = ["model", endpoint.required] if endpoint.required else ["model"]
    return {"type": "object", "required": needed, "properties": fields, "additionalProperties": True}


def _answer(endpoint: Endpoint, kind: str) -> Part:
    if kind != "application/json":
        return {"type": "string"}
    if endpoint.counts is Counts.NONE or endpoint.any_kind:
        return _OBJECT
    return {"type": "object", "properties": {"usage": {"type": ["object", "null"]}}}


def _schemas() -> dict[str, Part]:
    codes = sorted({code for several in _codes().values() for code in several})
    error = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "type": {"type": ["string", "null"]},
            "param": {"type": ["string", "null"]},
            "code": {
                "type": ["string", "integer", "null"],
                "description": "An engine's errors have codes of its own.",
                "examples": codes,
            },
        },
    }
    return {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": error}},
        "Model": {
            "type": "object",
            "required": ["id", "object", "created", "owned_by", "ready"],
            "properties": {
                "id": {"type": "string"},
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": {"type": "string"},
                "ready": {"type": "boolean"},
                "max_model_len": {"type": "integer"},
                "parent": {"type": "string"},
            },
        },
        "Health": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": {"type": "string"},
                "nodes": {"type": "integer"},
                "reasons": {"type": "array", "items": {"type": "string"}},
            },
        },
    }


def _headers() -> dict[str, Part]:
    shown: dict[str, Part] = {
        REQUEST_ID: {"schema": {"type": "string"}, "description": "Names this request in records and logs."},
        "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
    }
    for of in ("requests", "tokens"):
        for name in ("limit", "remaining", "reset"):
            shown[f"x-ratelimit-{name}-{of}"] = {
                "schema": {"type": "string" if name == "reset" else "integer"},
                "description": "Of the limit by the minute that has the least left, if there is one.",
            }
    return shown


def _parameters() -> dict[str, Part]:
    def header(name: str, says: str, schema: Part) -> Part:
        return {"name": name, "in": "header", "required": False, "description": says, "schema": schema}

    return {
        "Session": header(
            "X-Inventiv-Session",
            "Requests of one session go to one worker where the model's policy says so.",
            {"type": "string", "maxLength": MAX_SESSION},
        ),
        "Priority": header(
            "X-Inventiv-Priority",
            "Who goes first in the queue; never above the key's own.",
            {"type": "string", "enum": ["low", "normal", "high"]},
        ),
        "MaxWait": header(
            "X-Inventiv-Max-Wait",
            "Seconds to wait for a worker at most.",
            {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S},
        ),
    }


def _codes() -> dict[int, list[str]]:
    """Every status that an error is answered with, and the codes that go with it."""
    found: dict[int, set[str]] = {status: {code} for status, code in _OF_HTTP.items()}
    for code, shape in SHAPES.items():
        if shape.status != CLIENT_LEFT:  # nobody is there to read it
            found.setdefault(shape.status, set()).add(_SAID.get(code, code))
    found.setdefault(_OF_ENGINES, set()).add("invalid_request")
    return {status: sorted(codes) for status, codes in found.items()}


def _refusal(status: int, codes: list[str]) -> Part:
    headers = ("Retry-After",) if status in _RETRIED else ()
    says = f"{HTTPStatus(status).phrase}: {', '.join(codes)}."
    return _response(says, {"application/json": {"schema": _ref("schemas", "Error")}}, *headers)


def _refusals(statuses: Iterable[int]) -> dict[str, Part]:
    return {str(status): _ref("responses", f"E{status}") for status in sorted(statuses)}


def _response(says: str, content: Mapping[str, Part], *headers: str, limited: bool = False) -> Part:
    limits = [name for name in _headers() if name.startswith("x-ratelimit")] if limited else []
    shown = {name: _ref("headers", name) for name in (REQUEST_ID, *headers, *limits)}
    return {"description": says, "headers": shown, "content": content}


def _responses(operation: Part) -> Part:
    found = operation["responses"]
    assert isinstance(found, dict), "made here"
    return found


def _ref(kind: str, name: str) -> Part:
    return {"$ref": f"#/components/{kind}/{name}"}
