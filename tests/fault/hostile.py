"""What the fuzz tests send: requests that are nearly right, made from a seed, and one way to hear the answers."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.fault.spine import Running

AT_ONCE = 100
SILENCE_S = 0.5
JSON = "application/json"
CHUNKED = b"transfer-encoding: chunked\r\n"
_HEADERS = (
    b"content-length: 5\r\n",
    b"content-length: -1\r\n",
    b"content-length: 99999999999999999999999\r\n",
    b"content-length: 1_0\r\n",
    b"content-length:\r\n",
    CHUNKED,
    b"transfer-encoding: chunked, identity\r\n",
    b"transfer-encoding : chunked\r\n",
    b"transfer-encoding: \x0bchunked\r\n",
    b"expect: 100-continue\r\n",
    b"expect: the-unexpected\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\n",
    b"host: other\r\n",
    b"x: a\r\n folded\r\n",
    b"x: a\nsplit: b\r\n",
    b"x: a\rsplit: b\r\n",
    b"x: \0\r\n",
    b": no name\r\n",
    b"no colon\r\n",
    b"x-inventiv-session: \xff\xfe\r\n",
    b"x-inventiv-session: " + b"s" * 5000 + b"\r\n",
    b"x-inventiv-priority: highest\r\n",
    b"x-inventiv-max-wait: nan\r\n",
    b"x-inventiv-max-wait: 1e999\r\n",
    b"authorization: Bearer \xff\r\n",
    b"authorization: Basic eDp5\r\n",
    b"content-type: application/json; charset=\xe9\r\n",
    b"content-type: application/json\x01\r\n",
    b"content-type: " + b"a" * 10_000 + b"\r\n",
    b"content-encoding: gzip\r\n",
    b"x-forwarded-for: 127.0.0.1\r\n",
    b"".join(b"x-%d: y\r\n" % number for number in range(400)),
    b"x: " + b"y" * 40_000 + b"\r\n",
)
_LINES = (
    b"GET http://x/healthz HTTP/1.1\r\n",
    b"GET * HTTP/1.1\r\n",
    b"CONNECT x:443 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"TRACE / HTTP/1.1\r\n",
    b"BREW /v1/models HTTP/1.1\r\n",
    b"GET /v1/models/%ff%00%0d%0a HTTP/1.1\r\n",
    b"GET /v1/models/" + b"m" * 30_000 + b" HTTP/1.1\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.0\r\n",
    b"GET /healthz HTTP/2.0\r\n",
    b"GET /healthz HTTP/0.9\r\n",
    b"GET /healthz\r\n",
    b"GET  /healthz  HTTP/1.1\r\n",
    b"GET /healthz HTTP/1.1\n",
    b"HEAD /v1/chat/completions HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
_CHUNKS = (
    b"ffffffffffffffff\r\n",
    b"fffffffffffffffff\r\n",
    b"-1\r\n",
    b"zz\r\n",
    b"5;" + b"e" * 50_000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
    b"0\r\nx: " + b"y" * 100_000,
    b"1\nx\n0\n\n",
    b"1\r\nxx\r\n0\r\n\r\n",
    b"0\r\n\r\n" + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 40,
    b"1\r\n{\r\n" * 3000,
)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes hostile input for one gateway; the same from the same seed."""

    chance: random.Random
    key: str
    model: str

    def good(self, *, stream: bool = False, more: bytes = b"") -> bytes:
        """A request that is right, but for the headers given."""
        fields = {"model": self.model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        return self.posted(json.dumps(fields).encode(), more=more)

    def posted(
        self, body: bytes, *, path: str = "/v1/chat/completions", kind: str = JSON, more: bytes = b""
    ) -> bytes:
        """A request with that body."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\ncontent-type: {kind}\r\n"
        return head.encode() + more + b"content-length: %d\r\n\r\n" % len(body) + body

    def requests(self, count: int) -> Iterator[bytes]:
        """So many mutations of a request."""
        for _ in range(count):
            yield self.chance.choice((self._octets, self._head, self._line, self._chunks, self._many))()

    def _octets(self) -> bytes:
        octets = bytearray(self.good())
        for _ in range(self.chance.randint(1, 8)):
            at = self.chance.randrange(len(octets))
            size = self.chance.randint(0, 4)
            octets[at : at + size] = self.chance.choice(
                (self.chance.randbytes(3), b"\r\n", b"\0", b" ", b"\r\n\r\n", bytes(octets[:at])[-300:])
            )
        return bytes(octets)

    def _head(self) -> bytes:
        more = b"".join(self.chance.choices(_HEADERS, k=self.chance.randint(1, 3)))
        return self.good(more=more)

    def _line(self) -> bytes:
        rest = self.good().partition(b"\r\n")[2]
        return self.chance.choice(_LINES) + rest

    def _chunks(self) -> bytes:
        head = self.good().partition(b"content-length")[0]
        return head + CHUNKED + b"\r\n" + self.chance.choice(_CHUNKS)

    def _many(self) -> bytes:
        count = self.chance.choice((2, 15, 16, 17, 60))
        return b"".join(self.chance.choice((self._octets, self.good, self._head))() for _ in range(count))

    def bodies(self) -> Iterator[bytes]:
        """Bodies that are hard to read."""
        start = b'{"model":"%b","messages":[{"role":"user","content":"x"}],' % self.model.encode()
        deep = [b"[" * depth + b"]" * depth for depth in (200, 300, 1000, 1030, 100_000)]
        values = [
            *deep,
            b"1e999",
            b"-1e999",
            b"9" * 30,
            b"9" * 100_000,
            b"18446744073709551615",
            b'"\\ud800"',
            b'"\\u0000"',
            b'"\xff\xfe"',
            b"NaN",
            b"[" + b"1," * (2 * 2**20 - 100) + b"1]",
            b"[" + b"[]," * 90_000 + b"1]",
            b'{"a":1,"a":2}',
        ]
        names = [
            "x",
            "n",
            "max_tokens",
            "stream",
            "stream_options",
            "tools",
            "system",
            "timings_per_token",
            "model",
            "messages",
            "response_format",
            "k" * 300_000,
        ]
        for name in names:
            for value in values:
                if len(value) < 2**20 or name in ("x", "messages"):
                    yield start + b'"%b":%b}' % (name.encode(), value)
        for value in deep:
            yield start + b'"stream":true,"stream_options":{"x":%b}}' % value
        for size in (0, 1, 100):
            yield self.chance.randbytes(size)
        yield from (b"[]", b"null", b'"x"', b"{}", b"\xef\xbb\xbf" + start + b'"x":1}', start, start + b"}")

    def forms(self, count: int) -> Iterator[tuple[str, bytes]]:
        """Content types and forms."""
        chance = self.chance
        for _ in range(count):
            boundary = chance.choice(("b0", "b" * 70, "b" * 80, "", "b\xe9", 'b"0'))
            parts = [
                f'--b0\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'.encode()
                for name, more, value in (
                    ("model", "", chance.choice((self.model, self.model, "", "m" * 2000, "\0"))),
                    ("file", '; filename="a.wav"', "RIFF" * chance.randint(0, 2000)),
                    ("stream", "", chance.choice(("true", "false", "perhaps"))),
                    ("x[]", "", "1"),
                )
            ]
            some = chance.choices(parts, k=chance.choice((0, 1, 2, 3, 4, 70)))
            end = chance.choice((b"--b0--\r\n", b"--b0--", b"", b"--b0"))
            form = bytearray(b"".join(chance.choice((some, parts))) + end)
            for _ in range(chance.choice((0, 0, 1, 5))):
                at = chance.randrange(len(form) or 1)
                piece = chance.choice((b"\0", b"\r\n", b"--b0", chance.randbytes(4)))
                form[at : at + chance.randint(0, 9)] = piece
            yield f"multipart/form-data; boundary={boundary}", bytes(form)


async def said(spine: Running, octets: bytes, *, cut: int = 0, silence_s: float = SILENCE_S) -> bytes:
    """All that comes back until the gateway closes, or has said nothing for a while: it waits for more then.

    ``cut``: send these octets in two pieces, the first so long.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", spine.plan.http_port)
    came = bytearray()
    with contextlib.suppress(TimeoutError, OSError):
        for some in (octets[:cut], octets[cut:]):
            writer.write(some)
            async with asyncio.timeout(silence_s):
                await writer.drain()
        while True:
            async with asyncio.timeout(silence_s):
                some = await reader.read(65536)
            if not some:
                break
            came += some
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return bytes(came)


async def all_said(
    spine: Running, several: Iterable[bytes], chance: random.Random, *, silence_s: float = SILENCE_S
) -> list[bytes]:
    """The same for many, each on a connection of its own, some cut in two."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(octets: bytes) -> bytes:
        cut = chance.choice((0, chance.randint(0, len(octets))))
        async with gate:
            return await said(spine, octets, cut=cut, silence_s=silence_s)

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(one(octets)) for octets in several]
    return [task.result() for task in asking]


def statuses(answers: bytes) -> list[int]:
    """Of every answer, in their order. AssertionError when these octets are no row of whole answers."""
    found = []
    while answers:
        head, blank, rest = answers.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), answers[:200]
        status = int(head.split(b" ", 2)[1])
        if not blank:
            return [*found, status]
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if status == 100:
            answers = rest
            continue
        found.append(status)
        if b"content-length" in fields:
            answers = rest[int(fields[b"content-length"]) :]
        elif b"transfer-encoding" in fields:
            answers = rest.partition(b"0\r\n\r\n")[2]
        else:
            answers = b""
    return found
