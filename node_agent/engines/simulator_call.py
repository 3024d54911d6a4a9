"""What every endpoint of the simulator works with: a request, its fields checked, its errors in shape."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar, cast

from mesh.kit.clock import Clock
from node_agent.engines.simulator_answer import Answer
from node_agent.engines.simulator_http import Reply, Request
from node_agent.engines.simulator_metrics import Metrics
from node_agent.engines.simulator_options import Options
from node_agent.engines.simulator_scheduler import Job, Scheduler
from node_agent.engines.simulator_vocabulary import Vocabulary

T = TypeVar("T")
FINGERPRINT = "inventiv-mesh simulator"
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError", 500: "InternalServerError"}


class Refused(Exception):
    """The request cannot be answered."""

    def __init__(self, text: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(text)
        self.text, self.status, self.param = text, status, param


@dataclass(frozen=True, slots=True, kw_only=True)
class Sim:
    """The simulator that runs."""

    model: str
    adapters: tuple[str, ...]
    options: Options
    slots: int
    context: int
    """Tokens of prompt and answer together; 0: no end."""
    metrics: Metrics
    scheduler: Scheduler
    clock: Clock
    born: int
    """Seconds since 1970."""
    words: Vocabulary


@dataclass(slots=True, kw_only=True)
class Call:
    """One request to a model."""

    sim: Sim
    request: Request
    reply: Reply
    number: int
    body: Mapping[str, Any]
    model: str = ""
    created: int = 0
    id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, kind: type[T] | tuple[type, ...], default: T) -> T:
        """A field, or the default where it is missing or null. Refused when it is of another type."""
        value = self.body.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise Refused(f"{name}: {value!r:.100} is not of the right type", param=name)
        return cast("T", value)

    def need(self, name: str) -> Any:
        """A field that must be there."""
        if self.body.get(name) is None:
            raise Refused(f"{name}: field required", param=name)
        return self.body[name]

    def budget(self, prompt: int, asked: int | None) -> int:
        """Tokens that an answer may have. Refused when the context has no room for it."""
        if asked is not None and asked < 1:
            raise Refused(f"max_tokens must be at least 1, got {asked}.", param="max_tokens")
        limit = self.sim.context
        if not limit:
            return asked if asked is not None else 1 << 20
        if prompt + (asked or 1) > limit:
            raise Refused(
                f"This model's maximum context length is {limit} tokens. However, you requested "
                f"{asked or 1} output tokens and your prompt contains at least {prompt} input tokens, for a total "
                f"of at least {prompt + (asked or 1)} tokens. Please reduce the length of the input prompt or the "
                "number of requested output tokens.",
                param="input_tokens",
            )
        return asked if asked is not None else limit - prompt

    def run(
        self,
        prompt: Sequence[str],
        answers: Sequence[Answer] = (),
        *,
        say: Callable[[int, int], None] = lambda first, last: None,
        done: Callable[[Job], None],
    ) -> Job:
        """Have it scheduled. ``done`` may be called before this returns."""
        job = Job(
            prompt=prompt,
            answer=[answer.tokens for answer in answers],
            reasons=[answer.reason for answer in answers] or ["stop"],
            say=say,
        )
        job.done = lambda: done(job)
        self.reply.gone = lambda: self.sim.scheduler.abort(job)
        self.sim.scheduler.submit(job)
        return job

    def json(self, value: object) -> None:
        """The whole answer."""
        self.reply.whole(200, dump(value).encode("utf-8", "surrogatepass"))


def dump(value: object) -> str:
    """JSON as vLLM writes it: compact, and not ASCII only."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def integer(value: object, name: str) -> int | None:
    """A whole number or nothing."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise Refused(f"{name}: Input should be a valid integer", param=name)


def stops(call: Call, name: str = "stop") -> list[str]:
    """Stop strings."""
    value = call.body.get(name)
    if value is None:
        return []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Refused(f"{name}: Input should be a string or a list of strings", param=name)
    return found


def usage(job: Job, drawn: int) -> dict[str, Any]:
    """OpenAI's token counts."""
    return {
        "prompt_tokens": len(job.prompt),
        "total_tokens": len(job.prompt) + drawn,
        "completion_tokens": drawn,
        "prompt_tokens_details": {"cached_tokens": job.cached},
    }


def refuse(reply: Reply, path: str, refused: Refused) -> None:
    """An error in the shape of the path it is for."""
    kind = _TYPES.get(refused.status)
    if kind is None:
        known = refused.status in HTTPStatus._value2member_map_
        kind = HTTPStatus(refused.status).phrase.replace(" ", "") if known else "Error"
    error: dict[str, Any] = {"message": refused.text, "type": kind}
    if path.startswith("/v1/messages"):
        body: dict[str, Any] = {"type": "error", "error": error}
    else:
        body = {"error": {**error, "param": refused.param, "code": refused.status}}
    reply.whole(refused.status, dump(body).encode("utf-8", "surrogatepass"))
