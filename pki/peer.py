"""Who is calling, and may they: the guard in front of every RPC, and the one table from errors to statuses."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from cryptography import x509

from mesh.kit.clock import Clock
from mesh.kit.errors import (
    AlreadyExists,
    InUse,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    StaleEpoch,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from mesh.kit.logs import F
from pki.authority import serial_hex
from pki.bundle import identity_of
from pki.csr import MALFORMED
from pki.names import Identity, Kind
from pki.refusals import Refusals, source_of

log = logging.getLogger(__name__)

REASON_KEY = "mesh-reason"  # trailing metadata: the error's code, or its reason where it has one
RETRY_AFTER_KEY = "mesh-retry-after"  # trailing metadata: seconds, with RESOURCE_EXHAUSTED
SWEEP_S = 0.5  # open streams are looked at this often, so that a cut takes less than a second

STATUS: Final[Mapping[str, grpc.StatusCode]] = {
    InvalidInput.code: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound.code: grpc.StatusCode.NOT_FOUND,
    AlreadyExists.code: grpc.StatusCode.ALREADY_EXISTS,
    InUse.code: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated.code: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied.code: grpc.StatusCode.PERMISSION_DENIED,
    TooManyRequests.code: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable.code: grpc.StatusCode.UNAVAILABLE,
    StaleEpoch.code: grpc.StatusCode.ABORTED,
}


class Anyone(Enum):
    """A row that asks for no certificate. Not an empty set: forgetting the kinds must not open a door."""

    ANONYMOUS = "anonymous"


ANONYMOUS: Final = Anyone.ANONYMOUS

Allowed: TypeAlias = frozenset[Kind] | Anyone
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end, from their certificate alone."""

    identity: Identity
    not_after: datetime
    serial_hex: str


def caller_of(auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
    """The caller that a connection's certificate names. Unauthenticated without one, or with an ambiguous one."""
    shown = list(auth_context.get("x509_pem_cert") or ())
    if len(shown) != 1:
        raise Unauthenticated("no_certificate")
    try:
        certificate = x509.load_pem_x509_certificate(shown[0])
        identity = identity_of(certificate)
    except MALFORMED:
        raise Unauthenticated("bad_certificate") from None
    return Caller(identity, certificate.not_valid_after_utc, serial_hex(certificate))


async def fail(context: Context, exc: MeshError) -> NoReturn:
    """End the RPC with the error's status, its text, and its reason as trailing metadata."""
    trailing = [(REASON_KEY, _reason(exc))]
    if isinstance(exc, TooManyRequests):
        trailing.append((RETRY_AFTER_KEY, f"{exc.retry_after_s:.3f}"))
    if exc.code not in STATUS:  # not meant for the other side
        log.error("error without a status", exc_info=exc)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error", ((REASON_KEY, "internal"),))
    await context.abort(STATUS[exc.code], str(exc), tuple(trailing))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason that the other side gave with ``fail``; empty when the error is the transport's own."""
    value = (error.trailing_metadata() or grpc.aio.Metadata()).get(REASON_KEY, "")
    return value if isinstance(value, str) else ""


@dataclass(slots=True, eq=False)
class _Stream:
    """An open stream: whose it is, the scope that ends it, and why it was ended."""

    caller: Caller
    scope: asyncio.Timeout
    refusal: MeshError | None = None


def _always(_caller: Caller) -> MeshError | None:
    return None


class Guard(grpc.aio.ServerInterceptor):
    """Lets a call through only when the table names its method and the caller's kind. What has no row is refused.

    The certificate's end is checked when a call starts, and open streams are cut with UNAUTHENTICATED
    ``certificate_expired`` within a second of it: TLS looks at certificates only when a connection begins.
    ``still_allowed`` is asked at the same moments; the error it returns ends the call (revocation). It must be
    quick. ``recheck`` asks it at once for all open streams.

    MeshErrors from handlers become statuses; any other exception is logged and becomes a bare INTERNAL.
    Handlers are coroutines or async generators. The time comes from the clock, but the sweep over open streams
    is a timer of the event loop, so that it needs no task and cannot be forgotten.
    """

    def __init__(
        self,
        *,
        table: Mapping[str, Allowed],
        trust_domain: str,
        clock: Clock,
        still_allowed: Callable[[Caller], MeshError | None] = _always,
    ) -> None:
        self._table = dict(table)
        self._trust_domain = trust_domain
        self._clock = clock
        self._still_allowed = still_allowed
        self._streams: set[_Stream] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._refusals = Refusals()

    def recheck(self) -> None:
        """Look at every open stream now, and cut those whose caller is no longer welcome."""
        for stream in self._streams:
            if stream.refusal is None and (refusal := self._refusal(stream.caller)) is not None:
                stream.refusal = refusal
                stream.scope.reschedule(asyncio.get_running_loop().time())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The guarded handler, of the same cardinality. None, so UNIMPLEMENTED, for a method nobody serves."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self._wrap(handler_call_details.method, handler)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        behaviour: Any  # the stub types handlers for threads; ours are coroutines and async generators
        if handler.response_streaming:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        else:
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
        assert behaviour is not None, "a handler has the behaviour of its cardinality"
        decode = None if handler.request_streaming else handler.request_deserializer

        async def guarded(request: Any, context: Context) -> Any:
            async def work() -> Any:
                return await _respond(behaviour, request if decode is None else _decoded(decode, request), context)

            caller = None
            try:
                caller = self._admit(method, context)
                if caller is not None and (handler.request_streaming or handler.response_streaming):
                    return await self._watched(caller, work)
                return await work()
            except Exception as exc:  # edge: the one place where errors become statuses
                await self._end(method, caller, context, exc)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        # One request is decoded after the caller was admitted; of a stream nothing is read before that anyway.
        decoder = handler.request_deserializer if handler.request_streaming else None
        return make(guarded, request_deserializer=decoder, response_serializer=handler.response_serializer)

    def _admit(self, method: str, context: Context) -> Caller | None:
        allowed = self._table.get(method, frozenset[Kind]())
        if isinstance(allowed, Anyone):
            return None
        shown = context.auth_context()
        if b"true" in shown.get("ssl_session_reused", ()):  # nobody looked at that certificate today
            raise Unauthenticated("session_resumed")
        caller = caller_of(shown)
        if caller.identity.trust_domain != self._trust_domain:
            raise Unauthenticated("wrong_trust_domain")
        if caller.identity.kind not in allowed:
            raise PermissionDenied("wrong_kind", f"not for a {caller.identity.kind}")
        if (refusal := self._refusal(caller)) is not None:
            raise refusal
        return caller

    def _refusal(self, caller: Caller) -> MeshError | None:
        if self._clock.now() >= caller.not_after:
            return Unauthenticated("certificate_expired")
        try:
            return self._still_allowed(caller)
        except Exception:  # edge: a check that fails must not let anyone through, nor stop the sweep
            log.exception("authorisation check failed", extra={F.NODE: caller.identity.id})
            return Unavailable("callers cannot be checked at the moment")

    async def _watched(self, caller: Caller, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work, until the sweep finds that its caller has to go."""
        stream = _Stream(caller, asyncio.timeout(None))
        result = None
        try:
            async with stream.scope:
                self._streams.add(stream)
                self._keep_sweeping()
                result = await work()
        except Exception as exc:  # edge: what the sweep did is told from what the handler did
            if stream.refusal is None or isinstance(exc, grpc.aio.AbortError):
                raise  # the handler's own; after an abort nothing more can be said
        finally:
            self._streams.discard(stream)
        if stream.refusal is not None:
            raise stream.refusal
        return result

    async def _end(self, method: str, caller: Caller | None, context: Context, exc: Exception) -> NoReturn:
        """End the RPC as the exception deserves; a group is as bad as the worst in it."""
        causes = list(_leaves(exc))
        aborted = next((one for one in causes if isinstance(one, grpc.aio.AbortError)), None)
        if aborted is not None:
            raise aborted
        if not all(isinstance(one, MeshError) for one in causes):
            log.error("call failed", extra={F.PATH: method}, exc_info=exc)
            await context.abort(grpc.StatusCode.INTERNAL, "internal error", ((REASON_KEY, "internal"),))
        expected = next(one for one in causes if isinstance(one, MeshError))
        self._log_refusal(method, caller, context.peer(), expected)
        await fail(context, expected)

    def _log_refusal(self, method: str, caller: Caller | None, peer: str, exc: MeshError) -> None:
        """One line a minute for each caller and reason: whoever calls in a loop must not fill the disk."""
        facts: dict[str, object] = {F.PATH: method, F.REASON: _reason(exc), F.ADDRESS: peer}
        if isinstance(exc, TooManyRequests):  # the metrics count them
            log.debug("call refused", extra=facts)
            return
        who = source_of(peer) if caller is None else str(caller.identity)
        if count := self._refusals.count(who, f"{method} {_reason(exc)}", self._clock.monotonic()):
            log.info("call refused", extra={**facts, F.COUNT: count})

    def _keep_sweeping(self) -> None:
        if self._sweep is None and self._streams:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweep = None
        self.recheck()
        self._keep_sweeping()


async def _respond(handle: Callable[[Any, Context], Any], request: Any, context: Context) -> Any:
    """Run a handler of either style: a coroutine, or an async generator of responses."""
    answer = handle(request, context)
    if not inspect.isasyncgen(answer):
        return await answer
    async with contextlib.aclosing(answer) as responses:
        async for response in responses:
            await context.write(response)
    return None


def _decoded(decode: Callable[[bytes], Any], request: bytes) -> Any:
    try:
        return decode(request)
    except Exception:  # edge: what a decoder raises depends on the decoder
        raise InvalidInput("request", "not a message of this method") from None


def _leaves(exc: Exception) -> Iterable[Exception]:
    if isinstance(exc, ExceptionGroup):
        for one in exc.exceptions:
            yield from _leaves(one)
    else:
        yield exc


def _reason(exc: MeshError) -> str:
    return exc.reason if isinstance(exc, Unauthenticated | PermissionDenied) else exc.code
