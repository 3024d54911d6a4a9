"""The questions every OpenAI-shaped engine answers over HTTP: alive, models, one token, metrics.

Not the hot path: requests of users go through ``tunnel``. Here each question has its own connection, so that a
kept-alive one that the engine closes behind our back can never count as a sick engine.
"""

import asyncio
import json
from dataclasses import dataclass

from node_agent.core.metrics import parse_load
from node_agent.core.worker import LoopbackEndpoint
from node_agent.engines.connection import Connection, EngineFailed, connect
from node_agent.engines.port import EngineLoad, EngineUnreachable, EngineWrong

PROBE_BUDGET_S = 5.0  # an engine under full load answered within 0.3 s
WARM_UP_BUDGET_S = 120.0  # the first token of a big model compiles kernels
MAX_ANSWER = 1 << 20  # octets; lists of models and metrics are some kilobytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes


async def ask(
    endpoint: LoopbackEndpoint,
    path: str,
    *,
    budget_s: float = PROBE_BUDGET_S,
    body: dict[str, object] | None = None,
) -> Answer:
    """GET the path, or POST the body. EngineUnreachable when no whole answer comes within the budget."""
    try:
        async with asyncio.timeout(budget_s):
            connection = await connect(endpoint)
            try:
                return await _exchange(connection, endpoint, path, body)
            finally:
                connection.abort()
    except TimeoutError as exc:
        raise EngineUnreachable(f"no answer to {path} within {budget_s:g} s") from exc
    except EngineFailed as exc:
        raise EngineUnreachable(f"no answer to {path}: {exc}") from exc


async def _exchange(
    connection: Connection, endpoint: LoopbackEndpoint, path: str, body: dict[str, object] | None
) -> Answer:
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    lines = [f"{method} {path} HTTP/1.1", f"host: {endpoint.host}:{endpoint.port}", "connection: close"]
    if content:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    connection.begin(method, "\r\n".join([*lines, "", ""]).encode("ascii") + content)
    await connection.head()
    answer = bytearray()
    while piece := await connection.read():
        answer += piece
        if len(answer) > MAX_ANSWER:
            raise EngineWrong(f"{path} answered more than {MAX_ANSWER} octets")
    return Answer(connection.status, bytes(answer))


async def alive(endpoint: LoopbackEndpoint, *, budget_s: float = PROBE_BUDGET_S) -> bool:
    """``/health`` says 200; False for any other status."""
    return (await ask(endpoint, "/health", budget_s=budget_s)).status == 200


async def models(endpoint: LoopbackEndpoint) -> frozenset[str]:
    """The ids ``/v1/models`` lists; none while it answers anything but 200."""
    answer = await ask(endpoint, "/v1/models")
    if answer.status != 200:
        return frozenset()
    try:
        return frozenset(str(row["id"]) for row in json.loads(answer.body)["data"])
    except (ValueError, KeyError, TypeError) as exc:
        raise EngineWrong("/v1/models is not a list of models") from exc


async def warm_up(endpoint: LoopbackEndpoint, model: str, *, budget_s: float = WARM_UP_BUDGET_S) -> None:
    """One token by ``/v1/completions``."""
    question: dict[str, object] = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
    answer = await ask(endpoint, "/v1/completions", body=question, budget_s=budget_s)
    try:
        drawn = answer.status == 200 and bool(json.loads(answer.body)["choices"])
    except (ValueError, KeyError, TypeError):
        drawn = False
    if not drawn:
        raise EngineWrong(f"the first token did not come: status {answer.status} {answer.body[:200]!r}")


async def load(endpoint: LoopbackEndpoint) -> EngineLoad:
    """Requests and cache pressure from ``/metrics``; empty when it has none."""
    answer = await ask(endpoint, "/metrics")
    if answer.status != 200:
        return EngineLoad()
    running, waiting, kv_cache_usage = parse_load(answer.body.decode("utf-8", "replace"))
    return EngineLoad(running=running, waiting=waiting, kv_cache_usage=kv_cache_usage)
