"""The processes of a mesh on one machine, as data: what is run, with which settings, in which environment.

A child gets PATH, HOME, LANG, the settings of its own (``MESH_CP_…`` and so on, where ours win over those of the
caller, and the caller's over our manners at stopping) and nothing else. Secrets are in files; none is in an
argument or a variable that we set.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane.ctl.up.layout import Layout
from control_plane.ctl.up.ports import LOOPBACK, Ports
from control_plane.ctl.up.supervisor import Process

CONTROL_PLANE, GATEWAY, AGENT = "control-plane", "gateway", "agent"

_PASSED = ("PATH", "HOME", "LANG", "TMPDIR")
_OURS = ("control_plane", "mesh")  # a child runs the code that we are, installed or not


@dataclass(frozen=True, slots=True)
class Reach:
    """Who may reach the mesh: this machine only, or those who can reach ``advertised``."""

    advertised: str = ""

    @property
    def host(self) -> str:
        """Where listeners for others listen."""
        return "0.0.0.0" if self.advertised else LOOPBACK  # noqa: S104 - asked for with --open-ports

    def told(self, port: int) -> str:
        """How others reach that port."""
        return f"{self.advertised or LOOPBACK}:{port}"


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Run a module with our own interpreter; what lies in the working directory is not imported."""
    return (sys.executable, "-P", "-m", module, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the processes are made from."""

    layout: Layout
    ports: Ports
    reach: Reach
    http_port: int
    environ: Mapping[str, str]

    def base(self, prefix: str = "MESH_NONE_") -> dict[str, str]:
        """The environment of a child whose settings have that prefix, before ours."""
        found = {name: self.environ[name] for name in _PASSED if name in self.environ}
        settings = {name: value for name, value in self.environ.items() if name.startswith(prefix)}
        return {"LANG": "C.UTF-8", "PYTHONPATH": self._sources, **found, **settings}

    @property
    def _sources(self) -> str:
        roots = [str(Path(sys.modules[name].__path__[0]).parent.absolute()) for name in _OURS]
        return os.pathsep.join(
            dict.fromkeys([*roots, *self.environ.get("PYTHONPATH", "").split(os.pathsep)])
        ).strip(os.pathsep)

    def control_plane(self) -> Process:
        """The control plane, with its embedded Postgres."""
        own, layout = self.layout.control_plane, self.layout

        def environ() -> dict[str, str]:
            port = {name: self.ports.of(CONTROL_PLANE, name) for name in ("gateway", "admin", "http")}
            port |= {name: self._told_port(CONTROL_PLANE, name) for name in ("enroll", "node")}
            ours = {
                "STATE_DIR": str(own),
                "PKI_DIR": str(layout.pki),
                "TLS_DIR": str(own / "tls"),
                "ENROLL_LISTEN": f"{self.reach.host}:{port['enroll']}",
                "NODE_LISTEN": f"{self.reach.host}:{port['node']}",
                "GATEWAY_LISTEN": f"{LOOPBACK}:{port['gateway']}",
                "ADMIN_LISTEN": f"{LOOPBACK}:{port['admin']}",
                "HTTP_LISTEN": f"{LOOPBACK}:{port['http']}",
            }
            if self.reach.advertised:
                ours |= {
                    "ADVERTISE_ENROLL": self.reach.told(port["enroll"]),
                    "ADVERTISE_NODE": self.reach.told(port["node"]),
                }
            return self.base("MESH_CP_") | {f"MESH_CP_{name}": value for name, value in ours.items()}

        return Process(
            name=CONTROL_PLANE,
            command=python("control_plane"),
            environ=environ,
            listening=own / "listening.json",
            stop_budget_s=20.0,  # it stops Postgres, which writes a checkpoint
        )

    def gateway(self) -> Process:
        """The gateway."""
        own = self.layout.gateway

        def environ() -> dict[str, str]:
            tunnel = self._told_port(GATEWAY, "tunnel")
            ours = {
                "STATE_DIR": str(own),
                "TLS_DIR": str(own / "tls"),
                "NODE_TRUST": str(own / "node-trust.pem"),
                "CONTROL_PLANE": f"{LOOPBACK}:{self.ports.of(CONTROL_PLANE, 'gateway')}",
                "HTTP_LISTEN": f"{self.reach.host}:{self.http_port or self.ports.of(GATEWAY, 'http')}",
                "TUNNEL_LISTEN": f"{self.reach.host}:{tunnel}",
            }
            if self.reach.advertised:
                ours["ADVERTISE_TUNNEL"] = self.reach.told(tunnel)
            return (
                {"MESH_GW_STOP_GRACE": "3s"}
                | self.base("MESH_GW_")
                | {f"MESH_GW_{name}": value for name, value in ours.items()}
            )

        return Process(
            name=GATEWAY,
            command=python("gateway"),
            environ=environ,
            listening=own / "listening.json",
            stop_budget_s=10.0,
        )

    def _told_port(self, process: str, listener: str) -> int:
        """The port of a listener that others are told of, which has to be known before it listens."""
        of = self.ports.pick if self.reach.advertised else self.ports.of
        return of(process, listener)

    def agent_environ(self) -> dict[str, str]:
        """The environment of the agent and of its commands."""
        ours = {
            "STATE_DIR": str(self.layout.agent),
            "CONTROL_PLANE": f"{LOOPBACK}:{self.ports.of(CONTROL_PLANE, 'node')}",
            "HTTP_LISTEN": f"{LOOPBACK}:{self.ports.of(AGENT, 'http')}",
        }
        return (
            {"MESH_AGENT_DRAIN_GRACE": "3s"}
            | self.base("MESH_AGENT_")
            | {f"MESH_AGENT_{name}": value for name, value in ours.items()}
        )

    def agent(self) -> Process:
        """The agent of this machine."""
        return Process(
            name=AGENT,
            command=python("node_agent", "run", "--stop-engines"),
            environ=self.agent_environ,
            listening=self.layout.agent / "listening.json",
            stop_budget_s=20.0,  # requests end, then engines
        )
