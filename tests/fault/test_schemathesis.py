"""The published document against the gateway that publishes it: what is described is what happens, and no 5xx."""

import asyncio
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.fault.hostile_engine import engine
from tests.fault.spine import running, upstream

pytestmark = pytest.mark.real

EXAMPLES = 80
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
WITHIN_S = 100


def with_served_model(document: dict[str, Any], model: str) -> dict[str, Any]:
    """The document with a model that is served beside any other: what nobody serves is refused early."""
    for path in document["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                properties = content["schema"]["properties"]
                properties["model"] = {"anyOf": [{"const": model}, properties["model"]]}
    return document


def published(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json") as answer:
        document: dict[str, Any] = json.load(answer)
    return document


async def test_nothing_that_the_document_allows_or_forbids_is_our_failure(tmp_path: Path) -> None:
    async with upstream(engine) as port, running(port) as spine:
        document = await asyncio.to_thread(published, spine.plan.http_port)
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(with_served_model(document, spine.plan.model)))
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            str(file),
            f"--url=http://127.0.0.1:{spine.plan.http_port}",
            f"--header=Authorization: Bearer {spine.key}",
            f"--checks={','.join(CHECKS)}",
            "--phases=coverage,fuzzing",
            "--mode=all",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--suppress-health-check=all",
            "--warnings=off",
            "--no-color",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, said.decode(errors="replace")[-8000:]
        assert spine.gateway.poll() is None
        assert (await spine.ask(stream=False))[0] == 200
