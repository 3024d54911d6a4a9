"""The engine process: llama.cpp's HTTP server from the ``xllamacpp`` wheel, on loopback.

Run as a program (``python -m node_agent.engines.llamacpp_server --help``), it needs nothing of this project, so
that it starts fast and survives the agent. Ends with 0 when asked to stop, 2 for bad arguments, 3 when the port
cannot be bound, 4 when the model cannot be loaded, 5 when xllamacpp is missing; the last line says why.
While the model loads, SIGTERM ends it at once (by the signal).
"""

import argparse
import signal
import socket
import sys
import threading
from pathlib import Path

HOST = "127.0.0.1"  # never anything else: the engine has no authentication of its own
HTTP_THREADS = 256  # an answer in progress holds one; more than a tunnel's streams ever wait at once
STOPPED, PORT_TAKEN, MODEL_UNUSABLE, NOT_INSTALLED = 0, 3, 4, 5


def say(text: str) -> None:
    """One line for the engine's log, at once."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # this process's log is its stderr


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="llamacpp_server", description="llama.cpp's HTTP server on loopback.")
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--alias", required=True, help="name the model is served under")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=1, help="requests worked on at once")
    parser.add_argument(
        "--ctx", type=int, default=0, help="tokens of context over all of them; 0: the model's own"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-mib", type=int, default=0, help="memory for prompts kept for reuse")
    return parser.parse_args(argv)


def port_problem(port: int) -> str | None:
    """Why the port cannot be listened on; None when it can."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an old connection's rest is no obstacle
            probe.bind((HOST, port))
    except (OSError, OverflowError) as exc:
        return getattr(exc, "strerror", None) or str(exc)
    return None


def serve(options: argparse.Namespace) -> int:
    """Load, serve until SIGTERM or SIGINT, and return the exit code."""
    # Loading holds the interpreter's lock, so no handler of ours could run meanwhile: the signal itself must
    # end us, whatever our parent did with it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if problem := port_problem(options.port):
        say(f"cannot listen on {HOST}:{options.port}: {problem}")
        return PORT_TAKEN
    if not options.model.is_file():
        say(f"cannot load the model: no file {options.model}")
        return MODEL_UNUSABLE
    try:
        import xllamacpp  # noqa: PLC0415  # the signals and cheap checks come before a load of seconds
    except ImportError as exc:
        # The wheel brings everything but the OpenMP runtime, which small systems lack.
        lacks_openmp = "libgomp" in str(exc)
        remedy = (
            "apt-get install libgomp1" if lacks_openmp else "install it beside the agent: pip install xllamacpp"
        )
        say(f"cannot load xllamacpp: {exc}; {remedy}")
        return NOT_INSTALLED
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.hostnames, params.port = [HOST], options.port
    params.n_ctx, params.n_parallel = options.ctx, options.parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_threads_http = HTTP_THREADS
    params.cache_ram_mib = options.cache_mib
    params.endpoint_metrics, params.endpoint_slots, params.endpoint_props = True, False, False
    params.use_jinja, params.ui = True, False
    # No web page may read an answer through its visitor's browser.
    params.cors_origins, params.cors_origins_explicit, params.cors_credentials = "", True, False
    params.verbosity = 2  # warnings; a line per request would fill the log
    say(f"loading {options.model.name} as {options.alias} on {HOST}:{options.port}")
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        # Its own lines above say more; between our look and its bind, the port may have gone.
        problem = port_problem(options.port)
        say(f"cannot listen on {HOST}:{options.port}: {problem}" if problem else f"cannot load the model: {exc}")
        return PORT_TAKEN if problem else MODEL_UNUSABLE
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    say(f"serving {options.alias} on {HOST}:{options.port}")
    stop.wait()
    say("stopping")
    del server
    say("stopped")
    return STOPPED


if __name__ == "__main__":
    sys.exit(serve(arguments(sys.argv[1:])))
