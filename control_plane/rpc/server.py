"""The four gRPC listeners: who may connect to each, and what is served there.

Each listener trusts one issuing CA, so that a stolen certificate of one kind opens no other door; the guard in
front of every method checks the kind again.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import grpc

from mesh.kit.clock import Clock
from mesh.kit.settings import Address
from mesh.wire.channel import CONTROL_SERVER_OPTIONS, Options
from pki.peer import Allowed, Guard
from pki.tls import ServerTls

LAST_CALLS = timedelta(
    seconds=15
)  # for the calls of a connection that has lived long enough; ours take 10 at most
STOP_S = 0.5  # for calls that run; the streams have nothing to finish, whoever returns is told everything anew

Services = Callable[[grpc.aio.Server], None]
"""Registers what a listener serves."""


class CannotListen(Exception):
    """An address that cannot be listened on; the text says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One door."""

    name: str
    address: Address
    tls: ServerTls
    table: Mapping[str, Allowed]
    most_calls: int
    """Calls at once; one more is told RESOURCE_EXHAUSTED at once instead of waiting unheard."""
    most_octets: int
    """Size of one message that comes in."""
    most_connections: int
    """Connections at once, handshakes included; one more is closed. All doors share the process's open files."""
    longest_idle: timedelta | None = None
    """A connection without a call is closed after this long."""
    longest_life: timedelta | None = None
    """Any connection is closed after this long, and its calls with it: not where streams are."""
    options: Options = CONTROL_SERVER_OPTIONS


class RpcServer:
    """All listeners of this process."""

    def __init__(self, listeners: tuple[Listener, ...], *, trust_domain: str, clock: Clock) -> None:
        self._listeners, self._trust_domain, self._clock = listeners, trust_domain, clock
        self._servers: dict[str, grpc.aio.Server] = {}

    def bind(self) -> dict[str, Address]:
        """Take every address; return the real ones. CannotListen names the one that did not work."""
        addresses: dict[str, Address] = {}
        for listener in self._listeners:
            server = self._servers[listener.name] = grpc.aio.server(
                interceptors=[Guard(table=listener.table, trust_domain=self._trust_domain, clock=self._clock)],
                options=_options(listener),
                maximum_concurrent_rpcs=listener.most_calls,
            )
            try:
                port = server.add_secure_port(str(listener.address), listener.tls.credentials())
            except RuntimeError as exc:
                raise CannotListen(why_not(listener.address) or f"cannot listen on {listener.address}") from exc
            addresses[listener.name] = Address(listener.address.host, port)
        return addresses

    async def start(self, services: Mapping[str, Services]) -> None:
        """Serve on every address."""
        for name, server in self._servers.items():
            services[name](server)
            await server.start()

    async def stop(self) -> None:
        """Take no new calls, end the streams, close the listeners."""
        async with asyncio.TaskGroup() as group:
            for server in self._servers.values():
                group.create_task(server.stop(STOP_S))


def _options(listener: Listener) -> list[tuple[str, object]]:
    options: dict[str, object] = {
        **dict(listener.options),
        "grpc.so_reuseport": 0,  # else a second process on the same port would share it without a word
        "grpc.max_receive_message_length": listener.most_octets,
        "grpc.max_allowed_incoming_connections": listener.most_connections,
    }
    if listener.longest_idle is not None:
        options["grpc.max_connection_idle_ms"] = _milliseconds(listener.longest_idle)
    if listener.longest_life is not None:
        options["grpc.max_connection_age_ms"] = _milliseconds(listener.longest_life)
        options["grpc.max_connection_age_grace_ms"] = _milliseconds(LAST_CALLS)
    return [*options.items()]


def _milliseconds(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)


def why_not(address: Address) -> str | None:
    """One line that says why an address cannot be listened on, or None when it can.

    gRPC itself says only that it failed; and asking first spares the start of a database.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen()
    except OSError as exc:
        return f"cannot listen on {address}: {(exc.strerror or str(exc)).lower()}"
    return None
