"""Builds the node agent and keeps it running. The only file that knows every part.

Order: the folder is ours alone, the identity is there, loopback listens, then the parts. The last desired state is
applied before anyone is reached. Engines are not children in any sense that matters: ending the agent, in
whichever way, leaves them running, and the next one takes them over.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from mesh.kit.clock import Clock
from mesh.kit.errors import MeshError
from mesh.kit.logs import F
from mesh.kit.settings import Address
from mesh.kit.tasks import PartKeepsFailing, keep_running
from node_agent import endpoints
from node_agent.agent import agent_info
from node_agent.control.readings import Readings
from node_agent.control.session import ControlSession
from node_agent.disk import Disk
from node_agent.engines.registry import build
from node_agent.probes.gpu import GpuProbe
from node_agent.probes.host import HostProbe
from node_agent.responder import serving
from node_agent.settings import Settings
from node_agent.tunnel.dialer import Dialer
from node_agent.tunnel.local import Local
from node_agent.workers.process import ProcessRuntime
from node_agent.workers.supervisor import Supervisor, stop_every_engine
from pki.files import write_atomic

log = logging.getLogger(__name__)

LISTENING = "listening.json"
STOP_ENGINE_S = 10.0  # between asking an engine to end and forcing it


class StartFailed(Exception):
    """The agent cannot start as it was asked to; one line says what to do."""


async def serve(
    settings: Settings,
    clock: Clock,
    stop: asyncio.Event,
    *,
    environment: Mapping[str, str],
    stop_engines: bool = False,
) -> None:
    """Run until ``stop`` is set. StartFailed when it cannot begin; PartKeepsFailing when it cannot go on.

    ``environment`` is what engines inherit.
    """
    disk = Disk(settings.state_dir)
    async with AsyncExitStack() as held:
        try:
            held.enter_context(disk.locked())
            identity = disk.identity()
        except MeshError as exc:
            raise StartFailed(str(exc)) from exc

        runtime = ProcessRuntime(settings.state_dir, environment)
        supervisor = Supervisor(runtime, build(models_dir=settings.models_dir), clock)
        local = Local(supervisor.lease, clock, settings.max_requests)
        dialer = Dialer(disk, clock, local.open)
        readings = Readings(HostProbe(settings.state_dir), GpuProbe(), clock)
        control = ControlSession(
            disk=disk,
            clock=clock,
            agent=agent_info(),
            workers=supervisor,
            tunnels=dialer,
            probes=readings,
            address=settings.control_plane,
        )
        sources = endpoints.Sources(
            agent=agent_info,
            node_id=lambda: identity.node_id,
            workers=supervisor.views,
            host=readings.host,
            gpus=readings.gpus,
            own=lambda: {
                "inventiv_agent_connected": float(control.connected),
                "inventiv_agent_tunnels": float(len(dialer.up)),
                "inventiv_agent_requests": float(local.live),
            },
            state=lambda: {
                "connected": control.connected,
                "trouble": control.trouble,
                "applied_revision": control.applied.revision,
                "tunnels": list(dialer.up),
                "requests": local.live,
            },
        )
        address = await _listening(settings, sources, held)
        control.resume()
        parts = (supervisor, local, dialer, readings, control)
        failing: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(keep_running(part, clock)) for part in parts]
                _announce(settings.state_dir, address, held)
                await stop.wait()
                log.info("stopping", extra={F.COUNT: local.live})
                await dialer.leave(settings.drain_grace.total_seconds())
                for task in running:
                    task.cancel()
        except* PartKeepsFailing as failed:
            failing = failed.exceptions[0]
        if failing is not None:  # raised out here: Python before 3.11.4 would wrap it into a group again
            raise failing
        if stop_engines:
            count = await stop_every_engine(runtime, grace_s=STOP_ENGINE_S)
            log.info("engines stopped", extra={F.COUNT: count})


async def stop_all_engines(settings: Settings, *, environment: Mapping[str, str]) -> int:
    """End every engine that an agent left on this folder; how many. StartFailed while an agent runs there."""
    try:
        with Disk(settings.state_dir).locked():
            return await stop_every_engine(ProcessRuntime(settings.state_dir, environment), grace_s=STOP_ENGINE_S)
    except MeshError as exc:
        raise StartFailed(str(exc)) from exc


async def _listening(settings: Settings, sources: endpoints.Sources, held: AsyncExitStack) -> Address:
    try:
        return await held.enter_async_context(serving(endpoints.build(sources), settings.http_listen))
    except OSError as exc:
        why = exc.strerror or str(exc)
        raise StartFailed(
            f"cannot listen on {settings.http_listen}: {why.lower()}; set MESH_AGENT_HTTP_LISTEN to a free port"
        ) from exc


def _announce(state_dir: Path, address: Address, held: AsyncExitStack) -> None:
    """Say where we listen; the file is gone again after a clean exit."""
    path = state_dir / LISTENING
    try:
        write_atomic(path, json.dumps({"http": str(address)}).encode())
    except OSError as exc:  # a full disk: others have to be told the address
        log.warning("listening file not written", extra={F.PATH: str(path), F.REASON: exc.strerror})
    else:
        held.callback(path.unlink, missing_ok=True)
    log.info("listening", extra={F.ADDRESS: str(address)})
