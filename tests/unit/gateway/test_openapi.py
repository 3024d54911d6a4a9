"""The published document: valid, complete, and telling nothing but what is in the source."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import openapi_spec_validator
import orjson
import pytest

from gateway.api import openapi
from gateway.api.errors import CLIENT_LEFT, SHAPES
from gateway.core.endpoints import ENDPOINTS, Body

DOCUMENT: dict[str, Any] = orjson.loads(openapi.made("1.2.3").octets)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """What a reference means."""
    while "$ref" in part:
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [one for value in part.values() for one in references(value)]
    return [one for value in part for one in references(value)] if isinstance(part, list) else []


def test_it_is_an_openapi_document() -> None:
    openapi_spec_validator.validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert resolved({"$ref": reference})


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_endpoint_is_in_it(path: str) -> None:
    endpoint, operation = ENDPOINTS[path], DOCUMENT["paths"][path]["post"]
    kind = "multipart/form-data" if endpoint.body is Body.MULTIPART else "application/json"
    schema = operation["requestBody"]["content"][kind]["schema"]
    assert schema["additionalProperties"] is True
    assert {"model", endpoint.required} - {""} == set(schema["required"]) <= set(schema["properties"])
    assert ("text/event-stream" in operation["responses"]["200"]["content"]) is endpoint.streams
    assert {resolved(one)["name"] for one in operation["parameters"]} == {
        "X-Inventiv-Session",
        "X-Inventiv-Priority",
        "X-Inventiv-Max-Wait",
    }


def test_what_is_no_endpoint_of_engines_is_in_it_too() -> None:
    others = {"/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/openapi.json"}
    assert set(DOCUMENT["paths"]) == others | set(ENDPOINTS)
    open_to_all = {path for path in others if DOCUMENT["paths"][path]["get"].get("security") == []}
    assert open_to_all == {"/healthz", "/readyz", "/openapi.json"}
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"bearer", "apiKey"}


def test_every_error_is_in_it_under_its_status() -> None:
    responses = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]
    said = {
        "not_found": "model_not_found",
        "unauthenticated": "invalid_api_key",
        "permission_denied": "scope_missing",
    }
    for code, shape in SHAPES.items():
        if shape.status == CLIENT_LEFT:
            continue
        response = resolved(responses[str(shape.status)])
        assert said.get(code, code) in response["description"].rstrip(".").replace(": ", ", ").split(", ")
        assert "X-Request-Id" in response["headers"]
        assert ("Retry-After" in response["headers"]) is (shape.status in (429, 502, 503))
        error = resolved(resolved(response["content"]["application/json"]["schema"])["properties"]["error"])
        assert said.get(code, code) in error["properties"]["code"]["examples"]


@dataclass(slots=True)
class Seen:
    """A visit that only remembers its answer."""

    answers: list[tuple[int, bytes]] = field(default_factory=list)

    def answer(self, status: int, body: bytes) -> None:
        self.answers.append((status, body))


def test_it_is_served_as_it_was_made() -> None:
    seen, served = Seen(), openapi.made("1")
    asyncio.run(served.show(seen))  # type: ignore[arg-type]
    assert seen.answers == [(200, served.octets)]
