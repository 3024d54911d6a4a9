"""What every engine adapter promises. Subclasses supply ``engine``, ``wanted`` and ``begin``."""

import importlib.util
import sys
from collections.abc import Awaitable, Callable

import pytest

from node_agent.core.worker import LoopbackEndpoint, WorkerSpec
from node_agent.engines.port import Engine, EngineUnreachable, EngineWrong

Begin = Callable[[Engine, WorkerSpec], Awaitable[LoopbackEndpoint]]
NOBODY = LoopbackEndpoint("127.0.0.1", 1)


class EngineContract:
    """The suite.

    Fixtures: ``engine``; ``wanted``, a specification it can serve here; ``begin``, which starts it and returns
    where it listens once it lists its model.
    """

    def test_it_has_a_name_a_version_and_says_what_it_can(self, engine: Engine) -> None:
        assert engine.name
        assert engine.version()
        assert isinstance(engine.capabilities.drains, bool)

    def test_its_command_serves_the_specified_model_on_the_given_port(
        self, engine: Engine, wanted: WorkerSpec
    ) -> None:
        words = {word.rpartition("=")[2] for word in engine.command(wanted, port=4711).argv}
        assert {"4711", wanted.model} <= words

    async def test_where_nobody_listens_it_is_unreachable(self, engine: Engine, wanted: WorkerSpec) -> None:
        for ask in (
            engine.alive(NOBODY),
            engine.models(NOBODY),
            engine.warm_up(NOBODY, wanted.model),
            engine.load(NOBODY),
        ):
            with pytest.raises(EngineUnreachable):
                await ask

    async def test_a_serving_engine_lists_its_model_draws_a_token_and_tells_its_load(
        self, engine: Engine, wanted: WorkerSpec, begin: Begin
    ) -> None:
        endpoint = await begin(engine, wanted)
        assert await engine.alive(endpoint)
        assert wanted.model in await engine.models(endpoint)
        await engine.warm_up(endpoint, wanted.model)
        load = await engine.load(endpoint)
        assert load.running is not None
        assert load.waiting is not None


class WrongEngineContract:
    """For HTTP adapters. Fixtures: engines ``broken``, ``huge`` and ``loading``, ``wanted``, ``begin_any``."""

    async def test_nonsense_is_called_wrong_and_not_unreachable(
        self, broken: Engine, wanted: WorkerSpec, begin_any: Begin
    ) -> None:
        endpoint = await begin_any(broken, wanted)
        with pytest.raises(EngineWrong, match="not a list of models"):
            await broken.models(endpoint)
        with pytest.raises(EngineWrong, match="first token did not come"):
            await broken.warm_up(endpoint, wanted.model)
        assert await broken.load(endpoint) is not None

    async def test_an_answer_without_end_is_cut_off(
        self, huge: Engine, wanted: WorkerSpec, begin_any: Begin
    ) -> None:
        endpoint = await begin_any(huge, wanted)
        with pytest.raises(EngineWrong, match="more than"):
            await huge.models(endpoint)

    async def test_an_engine_that_loads_is_reachable_but_not_alive(
        self, loading: Engine, wanted: WorkerSpec, begin_any: Begin
    ) -> None:
        endpoint = await begin_any(loading, wanted)
        assert not await loading.alive(endpoint)

    async def test_a_model_it_does_not_have_draws_no_token(
        self, loading: Engine, wanted: WorkerSpec, begin_any: Begin
    ) -> None:
        endpoint = await begin_any(loading, wanted)
        with pytest.raises(EngineWrong, match="status 404"):
            await loading.warm_up(endpoint, "another")


def installed(package: str) -> bool:
    """Whether that package can be imported here."""
    return package in sys.modules or importlib.util.find_spec(package) is not None
