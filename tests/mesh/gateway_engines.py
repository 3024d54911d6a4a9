"""Engines for the gateway's tests: coroutines that answer a stream, and the octets that they say."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mesh.link.frames import ResetCode
from mesh.tunnel.v1 import tunnel_pb2
from mesh.wire.stream import Stream
from tests.fakes.patience import eventually

Engine = Callable[[Stream], Awaitable[None]]


async def body_of(stream: Stream) -> bytes:
    """All of the request's body."""
    return b"".join([octets async for octets in pieces(stream)])


async def pieces(stream: Stream) -> AsyncIterator[bytes]:
    while octets := await stream.read():
        yield octets


def respond(stream: Stream, status: int = 200, kind: str = "application/json") -> None:
    stream.respond(tunnel_pb2.Head(status=status, headers=[tunnel_pb2.Header(name="content-type", value=kind)]))


def chunk(content: str, completion: int | None = None) -> bytes:
    """A chunk as vLLM sends it with ``continuous_usage_stats``."""
    usage = "" if completion is None else f',"usage":{counts(completion)}'
    return (
        f'data: {{"id":"c-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,'
        f'"delta":{{"content":{json.dumps(content)}}},"finish_reason":null}}]{usage}}}\n\n'
    ).encode()


def counts(completion: int) -> str:
    return f'{{"prompt_tokens":5,"total_tokens":{5 + completion},"completion_tokens":{completion}}}'


def last_chunk(completion: int) -> bytes:
    return f'data: {{"id":"c-1","model":"m","choices":[],"usage":{counts(completion)}}}\n\n'.encode()


DONE = b"data: [DONE]\n\n"
WORDS = ("one", "two", "three")
PLAIN = b"".join(map(chunk, WORDS)) + DONE
"""What a client gets of ``talk`` who asked for nothing."""
ANSWER = b'{"id":"c-1","choices":[{"message":{"content":"\xc3\xa9"}}], "usage":' + counts(3).encode() + b"}"


async def talk(stream: Stream) -> None:
    """An engine that answers at once, in the way it was asked."""
    asked = json.loads(await body_of(stream))
    if not asked.get("stream"):
        respond(stream)
        await stream.write(ANSWER)
        stream.end()
        return
    respond(stream, kind="text/event-stream")
    for at, word in enumerate(WORDS, 1):
        await stream.write(chunk(word, at))
    await stream.write(last_chunk(3) + DONE)
    stream.end()


@dataclass(slots=True)
class Scripted:
    """An engine that says ``first``, if that is anything, and then what a test tells it to."""

    first: bytes = b""
    asked: list[dict[str, Any]] = field(default_factory=list)
    stream: Stream | None = None
    resets: list[str] = field(default_factory=list)

    async def __call__(self, stream: Stream) -> None:
        self.asked.append(json.loads(await body_of(stream)))
        if self.first:
            respond(stream, kind="text/event-stream")
            await stream.write(self.first)
        self.stream = stream
        try:
            await asyncio.Event().wait()
        finally:
            self.stream = None

    async def get(self) -> Stream:
        """The stream of the request that runs, once its body is here."""
        return await eventually(lambda: self.stream)


def refusing(code: ResetCode) -> Engine:
    """An engine whose node refuses every request so."""

    async def refuse(stream: Stream) -> None:
        stream.reset(code)

    return refuse


def events(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON of each event but ``[DONE]``."""
    for event in body.split(b"\n\n"):
        if event.startswith(b"data: {"):
            yield json.loads(event[6:])
