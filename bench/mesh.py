"""Ourselves: the real gateway on core 0, the agent's real tunnel on core 1, keys and usage as in production."""

import sys

from bench.peers import BACK_CORE, FRONT_CORE, Spawner, Target, free_port, wait_listening
from tests.fakes import spine

NAME = "inventiv-mesh"


def start(spawner: Spawner, upstream: int) -> Target:
    """A spine in front of the upstream, warm: the tunnel is up when this returns."""
    plan = spine.Spine(
        control_plane_port=free_port(), http_port=free_port(), tunnel_port=free_port(), upstream_port=upstream
    )
    folder = spawner.folder / f"mesh-{plan.http_port}"
    folder.mkdir()
    spine.lay_out(folder, plan)
    module = (sys.executable, "-m", "tests.fakes.spine")
    control_plane = spawner.start(f"mesh-cp-{plan.http_port}", BACK_CORE, *module, "control-plane", folder)
    gateway = spawner.start(
        f"mesh-gw-{plan.http_port}",
        FRONT_CORE,
        *(sys.executable, "-m", "gateway"),
        env=spine.gateway_environ(folder, plan),
    )
    wait_listening(plan.http_port)
    node = spawner.start(f"mesh-node-{plan.http_port}", BACK_CORE, *module, "node", folder)
    spine.until_routable(plan.http_port)
    return Target(
        NAME,
        plan.http_port,
        [gateway.pid],
        [node.pid, control_plane.pid],
        model=plan.model,
        key_file=str(folder / "key"),
        note="tunnel over mTLS, keys, routing, usage of every request on disk",
    )
