"""One question to the OpenAI endpoint, its answer handed on token by token as it comes."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from control_plane.ctl.errors import BAD_INPUT, REFUSED, CommandFailed, one_line
from mesh.kit.clock import Clock

CONNECT_S = 5.0
SILENCE_S = 120.0  # the gateway itself gives up on a silent engine before this
MAX_ERROR = 64 * 1024  # octets of an error body worth reading
MAX_LINE = 1024 * 1024  # octets of one event; more is not a chat completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to ask, and how."""

    model: str
    prompt: str
    system: str = ""
    max_tokens: int
    temperature: float = 0.0

    def body(self) -> dict[str, object]:
        """The request as the endpoint takes it."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How an answer came."""

    tokens: int
    first_token_s: float
    total_s: float

    @property
    def line(self) -> str:
        """The last line of a chat: tokens, their rate after the first one, and the wait for that."""
        after_first = self.total_s - self.first_token_s
        rate = f"{(self.tokens - 1) / after_first:.1f} tokens/s" if self.tokens > 1 and after_first > 0 else ""
        parts = (f"{self.tokens} tokens", rate, f"first after {self.first_token_s:.2f} s (TTFT)")
        return " · ".join(filter(None, parts))


class NotServed(CommandFailed):
    """The endpoint knows the question's model, or will, but cannot answer now."""


async def ask(
    question: Question, *, base_url: str, api_key: str, clock: Clock, on_text: Callable[[str], None]
) -> Timing:
    """Hand every piece of the answer to ``on_text``; say how it came. CommandFailed unless it came whole."""
    began = clock.monotonic()
    first: float | None = None
    chunks, counted = 0, 0
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {"Authorization": f"Bearer {api_key}", "Accept": "text/event-stream"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, read_bufsize=MAX_LINE) as session,
            session.post(f"{base_url}/chat/completions", json=question.body(), allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise _refusal(answer.status, await answer.content.read(MAX_ERROR), answer.headers)
            finished = False
            async for event in _events(answer.content):
                if event == "[DONE]":
                    finished = True
                    break
                row = _parse(event)
                counted = _completion_tokens(row) or counted
                if text := _text(row):
                    first = first if first is not None else clock.monotonic() - began
                    chunks += 1
                    on_text(text)
    except TimeoutError as exc:
        raise CommandFailed(
            f"the endpoint {base_url} is silent; `meshctl node list` shows whether a node is up"
        ) from exc
    except aiohttp.InvalidURL as exc:
        raise CommandFailed(f"--base-url: {base_url!r} is not a URL", exit_code=BAD_INPUT) from exc
    except aiohttp.ClientConnectorError as exc:
        raise CommandFailed(
            f"the endpoint {base_url} is unreachable ({exc.strerror or exc}); start one with `meshctl up`"
        ) from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise CommandFailed(f"the answer broke off: {one_line(str(exc)) or type(exc).__name__}") from exc
    if not finished:
        raise CommandFailed("the answer broke off before its end")
    total = clock.monotonic() - began
    return Timing(tokens=counted or chunks, first_token_s=first if first is not None else total, total_s=total)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The data of each server-sent event; comments and other fields are passed over."""
    async for line in content:
        if line.startswith(b"data:"):
            yield line[5:].strip().decode("utf-8", "replace")


def _parse(event: str) -> dict[str, Any]:
    row = json.loads(event)
    if not isinstance(row, dict):
        raise ValueError("an event that is no object")
    if (error := row.get("error")) is not None:
        raise CommandFailed(f"the answer broke off: {_message(error)}")
    return row


def _text(row: dict[str, Any]) -> str:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    delta = choices[0].get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    return text if isinstance(text, str) else ""


def _completion_tokens(row: dict[str, Any]) -> int:
    usage = row.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else 0


def _message(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return one_line(str(message))[:500]


def _refusal(status: int, body: bytes, headers: Any) -> CommandFailed:
    try:
        message = _message(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = one_line(body.decode("utf-8", "replace"))[:200] or "no reason given"
    if status == 401:
        return CommandFailed(f"the key is refused: {message}")
    if status in (429, 502, 503, 504):
        after = headers.get("Retry-After")
        return NotServed(f"not now: {message}" + (f" (again in {one_line(after)} s)" if after else ""))
    if status == 404:
        return NotServed(message)
    return CommandFailed(message, exit_code=BAD_INPUT if status in (400, 413, 415, 422) else REFUSED)
