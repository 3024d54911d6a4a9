"""Packets that vanish between node and gateway: two network namespaces, a cable, and a rule that drops."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes.spine import Spine, gateway_environ, lay_out
from tests.fault.spine import Running, free_port, role, spawn
from tests.fault.test_tunnel_defects import trickle


def may_make_namespaces() -> bool:
    """Whether we are root, and root may do it (in most containers it may not)."""
    tools = all(map(shutil.which, ("ip", "iptables", "nsenter", "unshare")))
    return (
        tools
        and os.geteuid() == 0
        and subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0
    )


pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not may_make_namespaces(),
        reason="needs root, ip and iptables: it cuts cables inside network namespaces of its own",
    ),
]

HUB, NODE = "192.0.2.1", "192.0.2.2"  # TEST-NET-1: nobody's
LISTENING = "listening"  # what the upstream says, to its log


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class Namespaces:
    """``hub`` and ``node``, joined by a cable."""

    def __init__(self) -> None:
        self.hub, self.node = (f"mesh-{os.getpid()}-{side}" for side in "hn")

    def inside(self, name: str) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{name}")

    def cut(self) -> None:
        """From now on every packet of the cable is dropped at the node, in both directions, silently."""
        for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
            run(*self.inside(self.node), "iptables", "-A", chain, way, "cable", "-j", "DROP")

    def mend(self) -> None:
        run(*self.inside(self.node), "iptables", "-F")


def lay_cable(made: Namespaces) -> None:
    for name in (made.hub, made.node):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", made.hub, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", made.node)
    for name, address in ((made.hub, HUB), (made.node, NODE)):
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
        run("ip", "-n", name, "link", "set", "cable", "up")


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        for name in (made.hub, made.node):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run(
            "ip",
            "-n",
            made.hub,
            "link",
            "add",
            "cable",
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            made.node,
        )
        for name, address in ((made.hub, HUB), (made.node, NODE)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
        yield made
    finally:
        for name in (made.hub, made.node):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
async def apart(namespaces: Namespaces) -> AsyncIterator[Running]:
    """A spine whose node and upstream are in one namespace, and all else in the other."""
    inside_hub, inside_node = namespaces.inside(namespaces.hub), namespaces.inside(namespaces.node)
    plan = Spine(
        control_plane_port=free_port(),
        http_port=free_port(),
        tunnel_port=free_port(),
        upstream_port=free_port(),
        tunnel_host=HUB,
    )
    with tempfile.TemporaryDirectory(prefix="mesh-spine-") as name:
        folder = Path(name)
        lay_out(folder, plan)
        module = (sys.executable, "-m", "tests.fault.test_network")
        others = [
            spawn(folder, "control-plane", *inside_hub, *role("control-plane", folder)),
            spawn(folder, "upstream", *inside_node, *module, str(plan.upstream_port)),
        ]
        gateway = spawn(
            folder, "gateway", *inside_hub, sys.executable, "-m", "gateway", **gateway_environ(folder, plan)
        )
        spine = Running(folder, plan, gateway, others=others)
        try:
            spine.start_node(prefix=inside_node)
            await until(namespaces, spine, is_ready=True, within_s=30)
            async with asyncio.timeout(30):
                while LISTENING not in (folder / "upstream.log").read_text():  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.05)
            yield spine
        finally:
            for process in (*spine.nodes, gateway, *others):
                process.kill()
                process.wait()


async def probe(namespaces: Namespaces, spine: Running, *argv: str) -> asyncio.subprocess.Process:
    inside = namespaces.inside(namespaces.hub)
    path = str(Path(__file__).with_name("probe.py"))
    verb, *rest = argv
    return await asyncio.create_subprocess_exec(
        *inside, sys.executable, path, verb, str(spine.plan.http_port), *rest, stdout=asyncio.subprocess.PIPE
    )


async def until(namespaces: Namespaces, spine: Running, *, is_ready: bool, within_s: float) -> None:
    """Until the gateway's readiness is that."""
    async with asyncio.timeout(within_s):
        while (await (await probe(namespaces, spine, "ready")).wait() == 0) is not is_ready:
            pass


async def test_a_link_that_loses_every_packet_ends_its_streams_and_comes_back(
    namespaces: Namespaces, apart: Running
) -> None:
    client = await probe(namespaces, apart, "stream", str(apart.folder / "key"))
    assert client.stdout is not None
    async with asyncio.timeout(10):
        assert await client.stdout.readline() == b"first\n"
    namespaces.cut()
    async with asyncio.timeout(15):
        assert await client.stdout.readline() == b"error\n"
        await until(namespaces, apart, is_ready=False, within_s=15)
    namespaces.mend()
    await until(namespaces, apart, is_ready=True, within_s=20)


async def test_an_idle_link_that_loses_every_packet_is_noticed(namespaces: Namespaces, apart: Running) -> None:
    namespaces.cut()
    await until(namespaces, apart, is_ready=False, within_s=20)
    namespaces.mend()
    await until(namespaces, apart, is_ready=True, within_s=20)
    assert apart.nodes[0].poll() is None


async def serve(port: int) -> None:
    """The upstream, in the node's namespace."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            await trickle(reader, writer, b"")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
