"""What every runtime promises. Subclasses supply ``runtime``, ``again`` and ``compose``."""

import asyncio
from collections.abc import Callable

import pytest

from node_agent.core.command import Command, EngineRefuses
from node_agent.workers.port import Compose, Running, Runtime

GRACE_S = 10.0


class RuntimeContract:
    """The suite.

    Fixtures: ``runtime`` on an empty node; ``again``, a new runtime on the same node, as after the loss of the
    agent; ``compose``, the command of an engine that runs until it is told otherwise; ``crash``, which ends one.
    """

    async def test_an_engine_is_found_as_it_was_started(self, runtime: Runtime, compose: Compose) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        assert await runtime.found() == (running,)
        assert (running.worker_id, running.spec_hash, running.starts) == ("w-1", "hash-1", 1)
        assert (running.endpoint.host, running.adoptable, running.was_ready) == ("127.0.0.1", True, False)

    async def test_the_command_is_made_for_the_port_that_was_chosen(
        self, runtime: Runtime, compose: Compose
    ) -> None:
        asked: list[int] = []

        def listen_in(port: int) -> Command:
            asked.append(port)
            return compose(port)

        running = await runtime.start("w-1", "hash-1", listen_in)
        assert asked == [running.port]

    async def test_engines_do_not_share_a_port(self, runtime: Runtime, compose: Compose) -> None:
        ports = {(await runtime.start(f"w-{n}", "hash-1", compose)).port for n in range(3)}
        assert len(ports) == 3

    async def test_an_engine_outlives_the_runtime_that_started_it(
        self, runtime: Runtime, again: Callable[[], Runtime], compose: Compose
    ) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        later = again()
        assert await later.found() == (running,)
        await later.stop(running, grace_s=GRACE_S)
        assert await later.found() == ()

    async def test_an_engine_started_by_another_runtime_is_seen_to_end(
        self, runtime: Runtime, again: Callable[[], Runtime], compose: Compose, crash: Callable[[Running], None]
    ) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        async with asyncio.timeout(GRACE_S), asyncio.TaskGroup() as group:
            group.create_task(again().exited(running))
            crash(running)

    async def test_an_end_nobody_asked_for_is_told(
        self, runtime: Runtime, compose: Compose, crash: Callable[[Running], None]
    ) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        crash(running)
        async with asyncio.timeout(GRACE_S):
            assert await runtime.exited(running) != ""
        assert await runtime.found() == ()

    async def test_stopping_ends_it_and_stopping_again_succeeds(self, runtime: Runtime, compose: Compose) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        for _ in range(2):
            await runtime.stop(running, grace_s=GRACE_S)
            assert await runtime.found() == ()
        async with asyncio.timeout(GRACE_S):
            await runtime.exited(running)

    async def test_stopping_one_engine_spares_its_neighbour(self, runtime: Runtime, compose: Compose) -> None:
        first, second = [await runtime.start(f"w-{n}", "hash-1", compose) for n in (1, 2)]
        await runtime.stop(first, grace_s=GRACE_S)
        assert await runtime.found() == (second,)

    async def test_starts_are_counted_for_one_specification(
        self, runtime: Runtime, again: Callable[[], Runtime], compose: Compose
    ) -> None:
        counts = []
        for one, spec_hash in ((runtime, "hash-1"), (again(), "hash-1"), (again(), "hash-2")):
            running = await one.start("w-1", spec_hash, compose)
            counts.append(running.starts)
            await one.stop(running, grace_s=GRACE_S)
        assert counts == [1, 2, 1]

    async def test_that_it_was_ready_is_known_to_a_later_runtime(
        self, runtime: Runtime, again: Callable[[], Runtime], compose: Compose
    ) -> None:
        running = await runtime.start("w-1", "hash-1", compose)
        ready = runtime.remember_ready(running)
        assert ready.was_ready
        assert await again().found() == (ready,)

    async def test_what_the_command_refuses_leaves_nothing_behind(
        self, runtime: Runtime, compose: Compose
    ) -> None:
        def refuse(port: int) -> Command:
            raise EngineRefuses("not this one")

        with pytest.raises(EngineRefuses):
            await runtime.start("w-1", "hash-1", refuse)
        assert await runtime.found() == ()

    async def test_a_worker_without_a_log_has_no_last_line(self, runtime: Runtime) -> None:
        assert runtime.last_line("w-9") == ""
        runtime.trim_log("w-9")
