"""The engine process of the simulator: vLLM's API and metrics over HTTP on loopback, with nothing behind them.

For tests and benchmarks (``python -m node_agent.engines.simulator_server --help``). Its answers mean nothing. Ends
with 0 when asked to stop, after what it has; a second signal ends it at once. 2 for bad arguments, 3 when the port
cannot be bound, 9 when it died on purpose.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvloop

from mesh.kit.clock import Clock, WallClock
from mesh.kit.errors import InvalidInput
from node_agent.engines import simulator_dialects, simulator_openai, simulator_readers
from node_agent.engines.simulator_call import Call, Refused, Sim, dump, refuse
from node_agent.engines.simulator_http import SERVER, Connection, Reply, Request
from node_agent.engines.simulator_metrics import CONTENT_TYPE, Metrics
from node_agent.engines.simulator_options import Fault, Options, fault, parse
from node_agent.engines.simulator_prompt import NotAPrompt
from node_agent.engines.simulator_scheduler import Scheduler, Timer
from node_agent.engines.simulator_vocabulary import Vocabulary

HOST = "127.0.0.1"  # never anything else: the engine has no authentication of its own
STOPPED, PORT_TAKEN = 0, 3
VLLM = "0.32.0"
BACKLOG = 4096

Endpoint = Callable[[Call], None]
MODEL_PATHS: dict[str, tuple[Endpoint, str]] = {
    "/v1/chat/completions": (simulator_openai.chat, "chatcmpl-"),
    "/v1/completions": (simulator_openai.completions, "cmpl-"),
    "/v1/responses": (simulator_dialects.responses, "resp_"),
    "/v1/messages": (simulator_dialects.messages, "msg_"),
    "/v1/embeddings": (simulator_readers.embeddings, "embd-"),
    "/pooling": (simulator_readers.embeddings, "pool-"),
    "/classify": (simulator_readers.classify, "classify-"),
    "/rerank": (simulator_readers.rerank, "rerank-"),
    "/v1/rerank": (simulator_readers.rerank, "rerank-"),
    "/v2/rerank": (simulator_readers.rerank, "rerank-"),
    "/score": (simulator_readers.score, "score-"),
    "/v1/score": (simulator_readers.score, "score-"),
    "/tokenize": (simulator_readers.tokenize, "tokn-"),
    "/detokenize": (simulator_readers.detokenize, "tokn-"),
    "/v1/audio/transcriptions": (simulator_readers.audio, "trsc-"),
    "/v1/audio/translations": (simulator_readers.audio, "trsl-"),
}
FORMS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})


@dataclass(slots=True)
class Simulator:
    """Answers requests. ``handle`` is all that a connection calls."""

    sim: Sim
    timer: Timer
    connections: set[Connection] = field(default_factory=set)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer it, now or later."""
        found = MODEL_PATHS.get(request.path)
        if found is None or request.method != "POST":
            self._plain(request, reply, known=found is not None)
            return
        endpoint, prefix = found
        try:
            call = self._call(request, reply, prefix)
            trouble = self._fault(call)
            if trouble is None:
                endpoint(call)
            else:
                self._spoil(call, endpoint, trouble)
        except (Refused, NotAPrompt, InvalidInput) as exc:
            refuse(reply, request.path, exc if isinstance(exc, Refused) else Refused(str(exc)))
        except RecursionError:
            refuse(reply, request.path, Refused("nested too deeply"))

    def _call(self, request: Request, reply: Reply, prefix: str) -> Call:
        sim = self.sim
        sim.metrics.requests += 1
        number = sim.metrics.requests
        if request.path in FORMS:
            body = simulator_readers.form(request.headers.get("content-type", ""), request.body)
        else:
            body = simulator_readers.parsed(request.body)
        model = body.get("model") or sim.model
        if model != sim.model and model not in sim.adapters:
            raise Refused(f"The model `{model}` does not exist.", status=404, param="model")
        given = request.headers.get("x-request-id") or f"{os.getpid():x}-{number:x}"
        return Call(
            sim=sim,
            request=request,
            reply=reply,
            number=number,
            body=body,
            model=model,
            created=int(sim.clock.now().timestamp()),
            id=f"{prefix}{given}",
        )

    def _fault(self, call: Call) -> Fault | None:
        asked = call.body.get("simulator_fault") or call.request.headers.get("x-simulator-fault")
        return fault(asked) if asked else self.sim.options.fault_of(call.number)

    def _spoil(self, call: Call, endpoint: Endpoint, trouble: Fault) -> None:
        self.sim.metrics.faults += 1
        call.reply.fault = trouble
        if trouble.no_headers is not None:
            call.reply.hang()
            return
        if trouble.slow_headers_ms:
            later = self.timer.time() + trouble.slow_headers_ms / 1e3
            waiting = self.timer.call_at(later, lambda: self._late(call, endpoint, trouble))
            call.reply.gone = waiting.cancel
            return
        self._late(call, endpoint, trouble)

    def _late(self, call: Call, endpoint: Endpoint, trouble: Fault) -> None:
        try:
            if trouble.status is not None:
                raise Refused("The simulator was asked to fail.", status=trouble.status)
            endpoint(call)
        except (Refused, NotAPrompt) as exc:
            refuse(call.reply, call.request.path, exc if isinstance(exc, Refused) else Refused(str(exc)))

    def _plain(self, request: Request, reply: Reply, *, known: bool) -> None:
        sim = self.sim
        match (request.method, request.path):
            case ("GET", "/health"):
                ready = (sim.clock.now().timestamp() - sim.born) * 1e3 >= sim.options.loading_ms
                reply.whole(200 if ready else 503, b"")
            case ("GET" | "POST", "/ping"):
                reply.whole(200, b"")
            case ("GET", "/version"):
                reply.whole(200, dump({"version": f"{VLLM}+simulator", "simulator": SERVER}).encode())
            case ("GET", "/v1/models"):
                reply.whole(
                    200, dump({"object": "list", "data": [self._card(one) for one in self._names()]}).encode()
                )
            case ("GET", path) if path.startswith("/v1/models/") and path[11:] in self._names():
                reply.whole(200, dump(self._card(path[11:])).encode())
            case ("GET", "/metrics"):
                scheduler = sim.scheduler
                page = sim.metrics.text(
                    sim.model,
                    running=scheduler.running,
                    waiting=scheduler.waiting,
                    cache_usage=scheduler.cache_usage,
                    blocks=sim.options.cache_blocks,
                )
                reply.whole(200, page, CONTENT_TYPE)
            case ("GET" | "POST", path) if path.startswith("/v1/responses/"):
                name = path.split("/")[3]
                refuse(
                    reply, path, Refused(f"Response with id {name!r} not found.", status=404, param="response_id")
                )
            case _:
                refuse(reply, request.path, Refused("Method Not Allowed", status=405) if known else
                       Refused("Not Found", status=404))  # fmt: skip

    def _names(self) -> tuple[str, ...]:
        return (self.sim.model, *self.sim.adapters)

    def _card(self, name: str) -> dict[str, Any]:
        sim = self.sim
        parent = None if name == sim.model else sim.model
        return {"id": name, "object": "model", "created": sim.born, "owned_by": SERVER, "root": name,
                "parent": parent, "max_model_len": sim.context or None, "permission": []}  # fmt: skip


def build(
    options: Options,
    *,
    model: str,
    adapters: tuple[str, ...],
    slots: int,
    context: int,
    clock: Clock,
    timer: Timer,
) -> Simulator:
    """A simulator that is ready to answer."""
    metrics = Metrics()
    sim = Sim(
        model=model,
        adapters=adapters,
        options=options,
        slots=slots,
        context=context,
        metrics=metrics,
        scheduler=Scheduler(options, slots, metrics, timer),
        clock=clock,
        born=int(clock.now().timestamp()),
        words=Vocabulary(),
    )
    return Simulator(sim, timer)


def say(text: str) -> None:
    """One line for the engine's log, at once."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # this process's log is its stderr


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="simulator_server", description="An engine that only pretends, on loopback."
    )
    parser.add_argument("--model", required=True, help="name the model is served under")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", default="", help="seed=7,ttft_ms=10,token_ms=5,…")
    parser.add_argument("--lora-modules", nargs="+", action="extend", default=[], help="further names")
    parser.add_argument("--slots", type=int, default=256, help="requests worked on at once")
    parser.add_argument("--ctx", type=int, default=0, help="tokens of context of one request; 0: no end")
    found = parser.parse_args(argv)
    if found.slots < 1 or found.ctx < 0:
        parser.error("--slots must be 1 at least, --ctx not below 0")
    try:
        found.options = parse(found.options)
    except InvalidInput as exc:
        parser.error(str(exc))
    return found


async def serve(asked: argparse.Namespace) -> int:
    """Answer until SIGTERM or SIGINT, finish what is there, and return the exit code."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    clock = WallClock()
    simulator = build(
        asked.options,
        model=asked.model,
        adapters=tuple(asked.lora_modules),
        slots=asked.slots,
        context=asked.ctx,
        clock=clock,
        timer=loop,
    )

    def asked_to_stop() -> None:
        if stop.is_set():
            os._exit(128 + signal.SIGTERM)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop)
    connections = simulator.connections
    connect = lambda: Connection(simulator.handle, connections, stop.is_set)  # noqa: E731  # one line, used once
    try:
        server = await loop.create_server(connect, HOST, asked.port, backlog=BACKLOG)
    except (OSError, OverflowError) as exc:
        say(f"cannot listen on {HOST}:{asked.port}: {getattr(exc, 'strerror', None) or exc}")
        return PORT_TAKEN
    say(f"serving {asked.model} on {HOST}:{asked.port}; this is a simulator: its answers mean nothing")
    await stop.wait()
    say("stopping")
    server.close()
    for connection in list(connections):
        if not connection.busy:
            connection.close()
    while connections:
        await clock.sleep(0.01)
    with contextlib.suppress(OSError):
        await server.wait_closed()
    say("stopped")
    return STOPPED


def main(argv: list[str]) -> int:
    """The program."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    return uvloop.run(serve(arguments(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
