"""An engine that breaks every rule of its side, by a script that the request names."""

import asyncio
import json
import random
import re
from collections.abc import Callable

import orjson

from tests.fault.spine import event, framed

_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
_DONE = b"data: [DONE]\n\n"
_ENDS = b'data: {"type":"response.completed","response":{}}\n\ndata: {"type":"message_stop"}\n\n'
_STREAM = rb'name="stream"[^\n]*\r\n\r\n\s*(?i:true|1)\s*\r\n'
_END = b"0\r\n\r\n"
_HALF = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\ud83d"},"finish_reason":null}]}\n\n'
_USAGE = (
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":%b,"completion_tokens":%b,"total_tokens":1}}\n\n'
    % (b"9" * 5000, b"-1e400")
)
_DEEP = b'data: {"id":%b,"choices":[{"delta":{"content":"x"}}],"usage":{"a":%b}}\n\n' % (
    b"[" * 3000 + b"]" * 3000,
    b"{" * 100,
)


def _noise(chance: random.Random) -> bytes:
    return _CHUNKED + framed(chance.randbytes(chance.randint(1, 3000))) + _END


def _noise_for_an_answer(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 3000))


def _mixed(chance: random.Random) -> bytes:
    pieces = (
        b"\r\n\r\n",
        b"\n\n",
        b"\r\r",
        b"\r\n",
        event("x"),
        event("x").replace(b"\n", b"\r\n"),
        b": comment",
        b"data:",
        b"event: error\n",
        b"id: \0\n",
        b"\xef\xbb\xbf",
        _HALF,
        _USAGE,
        _DEEP,
        _DONE,
        chance.randbytes(20),
    )
    out = b"".join(framed(b"".join(chance.choices(pieces, k=3))) for _ in range(chance.randint(1, 12)))
    return _CHUNKED + out + chance.choice((_END, b"", framed(_DONE) + _END))


def _huge(chance: random.Random) -> bytes:
    return _CHUNKED + framed(b"data: " + b"x" * chance.randint(200_000, 900_000)) * 2 + framed(_DONE) + _END


def _many_small(_chance: random.Random) -> bytes:
    return _CHUNKED + b"".join(framed(bytes([octet])) for octet in event("slow") * 20) + framed(_DONE) + _END


def _compressed(chance: random.Random) -> bytes:
    head = _CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    return head + framed(b"\x1f\x8b\x08\0" + chance.randbytes(200)) + _END


def _error_event(_chance: random.Random) -> bytes:
    return _CHUNKED + framed(event("x") + b'data: {"error":{"message":"\xff","code":1e999}}\n\n') + _END


def _early_close(chance: random.Random) -> bytes:
    whole = _CHUNKED + framed(event("x")) + framed(_DONE) + _END
    return whole[: chance.randrange(len(whole))]


def _status(chance: random.Random) -> bytes:
    status = chance.choice(
        (b"000", b"100", b"101", b"204", b"302", b"400", b"404", b"418", b"500", b"599", b"999")
    )
    body = chance.choice((b"", b"{}", b'{"error":{}}', b'{"message":"' + b"x" * 200_000 + b'"}', b"\xff\0"))
    return b"HTTP/1.1 %b X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


def _head(chance: random.Random) -> bytes:
    line = chance.choice(
        (b"x: " + b"y" * 100_000, b"set-cookie: a=b", b"content-length: 5\r\ncontent-length: 6", b"\0")
    )
    return b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\nhello"


def _two_answers(_chance: random.Random) -> bytes:
    return (_CHUNKED + framed(event("x") + _DONE) + _END) * 2


def _no_length(_chance: random.Random) -> bytes:
    return _UNTIL_CLOSED + event("x") + _DONE


def _bad_chunks(_chance: random.Random) -> bytes:
    return _CHUNKED + framed(event("x")) + b"zz\r\n"


SCRIPTS: dict[str, Callable[[random.Random], bytes]] = {
    script.__name__.strip("_"): script
    for script in (
        _noise,
        _noise_for_an_answer,
        _mixed,
        _huge,
        _many_small,
        _compressed,
        _error_event,
        _early_close,
        _status,
        _head,
        _two_answers,
        _no_length,
        _bad_chunks,
    )
}


async def engine(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
    """Follows the script in ``user`` (its name and a seed); else answers with that ``user``, as it should."""
    user, stream = _asked(body)
    name, _, seed = str(user).partition(" ")
    if name in SCRIPTS:
        writer.write(SCRIPTS[name](random.Random(seed)))
    elif stream:
        writer.write(_CHUNKED + framed(event("x") + _ENDS + _DONE) + _END)
    else:
        said = json.dumps(
            {"id": user, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        ).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(said) + said)
    await writer.drain()


def _asked(body: bytes) -> tuple[object, bool]:
    """The ``user``, and whether a stream is wanted."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:  # a form, of which the gateway has read the same
        return None, re.search(_STREAM, body) is not None
    return fields.get("user"), fields.get("stream") is True
