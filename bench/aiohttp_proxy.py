"""A peer: the plainest proxy that aiohttp makes, server and client. ``aiohttp_proxy.py PORT UPSTREAM_PORT``."""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

PORT, UPSTREAM = int(sys.argv[1]), int(sys.argv[2])
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Pass one request on, and the answer back chunk by chunk."""
    body = await request.read()
    url = f"http://127.0.0.1:{UPSTREAM}{request.path_qs}"
    async with request.app[SESSION].request(
        request.method, url, data=body, headers={"content-type": "application/json"}
    ) as upstream:
        if upstream.content_type != "text/event-stream":
            return web.Response(
                body=await upstream.read(), status=upstream.status, content_type=upstream.content_type
            )
        answer = web.StreamResponse(status=upstream.status, headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        async for chunk in upstream.content.iter_any():
            await answer.write(chunk)
        await answer.write_eof()
        return answer


async def with_session(app: web.Application) -> AsyncIterator[None]:
    """One pooled client for the life of the server."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:
        app[SESSION] = session
        yield


def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(with_session)
    app.router.add_route("*", "/{path:.*}", forward)
    web.run_app(
        app, host="127.0.0.1", port=PORT, access_log=None, print=None, backlog=4096, loop=uvloop.new_event_loop()
    )


main()
