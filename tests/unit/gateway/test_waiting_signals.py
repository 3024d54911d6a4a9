"""What is told of those who wait, and which models are still known."""

import pytest

from gateway.core.demand import Demand
from gateway.tunnel import waiting as waiting_module
from gateway.tunnel.patience import Patience
from tests.unit.gateway.waiting_scene import INF, Scene


async def test_what_was_seen_is_told_once() -> None:
    scene = Scene(slots=1)
    async with scene.ticking() as group:
        for key in "abc":
            group.create_task(scene.request(key, 2.0))
        await scene.clock.forward(3)
        seen = Demand("m", 1, 1, 2, 0, 1000, 2047, 3000)
        assert (scene.waiting.demand("m"), scene.waiting.report()) == (seen, [seen])
        assert scene.waiting.report() == [Demand("m", 1, 1, 0, 0, 0, 0, 3000)]
        await scene.clock.forward(3)
    assert scene.waiting.report() == [Demand("m", 0, 0, 1, 0, 4000, 4095, 0)]
    tally = scene.waiting.tallies()["m"]
    assert (tally.admitted, tally.waits, tally.waited_s) == (3, 2, 6.0)


async def test_a_turn_knows_how_long_it_waited() -> None:
    scene = Scene(slots=0)
    async with scene.ticking() as group:

        async def waits() -> None:
            with Patience(scene.room) as patience:
                async with scene.waiting.turn("m", patience, key_id="a") as turn:
                    assert turn.waited_s == 3.0
                    assert patience.due == INF

        group.create_task(waits())
        await scene.clock.forward(3)
        scene.slots = 1
        scene.waiting.room_made("m")


async def test_a_model_nobody_asked_for_has_nothing() -> None:
    scene = Scene()
    scene.waiting.room_made("other")
    assert (scene.waiting.waiting("other"), scene.waiting.promised("other")) == (0, 0)
    assert scene.waiting.demand("other") == Demand("other", 0, 0, 0, 0, 0, 0, 0)
    assert (scene.waiting.report(), scene.asked) == ([], 0)


async def test_room_is_not_asked_for_when_nobody_waits() -> None:
    scene = Scene()
    with Patience(scene.room) as patience:
        async with scene.waiting.turn("m", patience, key_id="a"):
            scene.waiting.room_made("m")
    assert scene.asked == 1


async def test_models_that_are_gone_are_forgotten_once_nobody_is_there() -> None:
    scene = Scene(slots=1)
    with Patience(scene.room) as patience:
        async with scene.waiting.turn("m", patience, key_id="a"):
            async with scene.waiting.turn("stays", patience, key_id="a"):
                pass
            scene.waiting.keep_only({"stays"})
            assert set(scene.waiting.tallies()) == {"m", "stays"}
    scene.waiting.keep_only({"stays"})
    assert set(scene.waiting.tallies()) == {"stays"}


async def test_the_busiest_are_reported_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "REPORTED", 2)
    scene = Scene(slots=1)
    with Patience(scene.room) as patience:
        for model in ("idle", "idle", "busy", "busy", "busy", "once"):
            async with scene.waiting.turn(model, patience, key_id="a"):
                pass
    assert [(one.model, one.admitted) for one in scene.waiting.report()] == [("busy", 3), ("idle", 2)]
    assert [(one.model, one.admitted) for one in scene.waiting.report()] == [("once", 1), ("idle", 0)]
