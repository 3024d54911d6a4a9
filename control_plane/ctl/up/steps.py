"""What each step of `meshctl up` does. Every one looks first whether its work is already done by an earlier run.

A step returns what a person may want to know of it. It raises CommandFailed when the mesh cannot come up.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc

from control_plane.ctl import chat, identity, progress, running
from control_plane.ctl.admin import Admin, Target, connect
from control_plane.ctl.commands.chat import read_key
from control_plane.ctl.commands.node import state_of
from control_plane.ctl.errors import CallRefused, CommandFailed
from control_plane.ctl.output import say
from control_plane.ctl.progress import short
from control_plane.ctl.running import RunningMesh
from control_plane.ctl.terminal import Answer
from control_plane.ctl.up.catalog import DemoModel
from control_plane.ctl.up.identities import Identities
from control_plane.ctl.up.ports import LOOPBACK
from control_plane.ctl.up.processes import AGENT, CONTROL_PLANE, GATEWAY, Plan, python
from control_plane.ctl.up.supervisor import Supervisor
from control_plane.ctl.up.tools import run_tool
from control_plane.ctl.up.view import View, WorkersInStep
from mesh.admin.v1 import api_key_pb2, deployment_pb2, join_token_pb2, model_pb2, node_pb2, organization_pb2
from mesh.kit.clock import Clock
from mesh.kit.errors import InvalidInput
from pki import api_keys
from pki.files import write_private
from pki.names import Kind

ORGANIZATION = "demo"
TOKEN_TTL_S = 300  # it is used within seconds
ENROLL_BUDGET_S = 45.0
POLL_S = 0.1
RENEW_EVERY_S = 300.0  # far more often than half of the shortest life (operators: 8 h)
REJOIN_BEFORE = timedelta(hours=1)  # of the end of the agent's certificate, which lives for 24 h
ANSWER_TOKENS = 64
# From READY until the gateway routes to it: a second; a minute when the worker's last node just fell silent.
ROUTE_BUDGET_S = 90.0


@dataclass(slots=True, kw_only=True)
class Mesh:
    """The mesh as far as it is up."""

    plan: Plan
    supervisor: Supervisor
    identities: Identities
    model: DemoModel
    question: str
    clock: Clock
    view: View
    held: AsyncExitStack
    wait_budget_s: float
    is_up: bool = False
    base_url: str = ""
    api_key: str = field(default="", repr=False)
    _http_port: int = 0
    _admin: Admin | None = None

    @property
    def admin(self) -> Admin:
        """The admin API, from the step on that starts the control plane."""
        assert self._admin is not None
        return self._admin

    async def make_identities(self) -> str:
        """Certificate authorities, and certificates for the processes and for us."""
        made = await self.identities.ensure()
        return f"new: {', '.join(made)}" if made else "those of the last run"

    async def start_control_plane(self) -> str:
        """The control plane with its database, and our channel to it."""
        self.supervisor.start(self.plan.control_plane())
        listening = await self.supervisor.listening(CONTROL_PLANE)
        self.plan.ports.learn(CONTROL_PLANE, listening)
        target = Target(listening["admin"], self.plan.layout.operator)
        self._admin = await self.held.enter_async_context(connect(target, self.clock))
        return f"admin API on {listening['admin']}"

    async def start_gateway(self) -> str:
        """The gateway, and so the OpenAI endpoint."""
        self.supervisor.start(self.plan.gateway())
        listening = await self.supervisor.listening(GATEWAY)
        self._http_port = int(listening["http"].rpartition(":")[2])
        self.base_url = f"http://{self.plan.reach.told(self._http_port)}/v1"
        if self.plan.http_port:  # asked for by number, so it is not ours to remember
            del listening["http"]
        self.plan.ports.learn(GATEWAY, listening)
        return self.base_url

    async def make_accounts(self) -> str:
        """The organization that owns and consumes, and its key."""
        request = organization_pb2.CreateOrganizationRequest(name=ORGANIZATION)
        try:
            await self.admin.call(request, organization_pb2.CreateOrganizationResponse)
        except CallRefused as exc:
            _only(exc, grpc.StatusCode.ALREADY_EXISTS)
        path = self.plan.layout.api_key
        self.api_key = await self._known_key(path) or await self._new_key(path)
        await self._announce(path)
        return f"{ORGANIZATION}, key {api_keys.parse(self.api_key).id}"

    async def join(self) -> str:
        """Enroll this machine's agent by the real join, unless it has an identity that is good for hours."""
        folder, before = self.plan.layout.agent / "identity", self.plan.layout.node
        mine = self.identities.good(folder, Kind.NODE)
        if mine is not None and await self._is_known(mine.identity.id):
            return f"node …{short(mine.identity.id)}, joined before"
        self.view.progress("asking for a join token")
        request = join_token_pb2.CreateJoinTokenRequest(organization=ORGANIZATION, ttl_s=TOKEN_TTL_S, uses=1)
        token = await self.admin.call(request, join_token_pb2.CreateJoinTokenResponse)
        self.view.progress("enrolling with it")
        await run_tool(
            "mesh-agent enroll",
            python(
                *("node_agent", "enroll", "--control-plane", token.enroll_endpoint, "--ca-pin", token.ca_pin),
                *(("--force",) if folder.exists() else ()),
            ),
            environ=self.plan.agent_environ(),
            stdin=token.token + "\n",
            budget_s=ENROLL_BUDGET_S,
        )
        # What this machine was before holds workers that nobody runs.
        if before.exists() and await self._is_known(node_id := before.read_text().strip()):
            await self.admin.call(node_pb2.DeleteNodeRequest(node_id=node_id), node_pb2.DeleteNodeResponse)
        node_id = identity.load(folder).identity.id
        write_private(before, f"{node_id}\n".encode())
        return f"node …{short(node_id)}"

    async def start_agent(self) -> str:
        """The agent, until the control plane sees it."""
        self.supervisor.start(self.plan.agent())
        listening = await self.supervisor.listening(AGENT)
        self.plan.ports.learn(AGENT, listening)
        node_id = identity.load(self.plan.layout.agent / "identity").identity.id
        self.view.progress("waiting for its first report")
        while True:
            node = await self._node(node_id)
            if node is not None and state_of(node) == "online":
                return f"agent {node.agent_info.version} online"
            await self.clock.sleep(POLL_S)

    async def deploy(self) -> str:
        """The model, a deployment of it, and its worker until that answers requests."""
        model = model_pb2.CreateModelRequest(
            name=self.model.name,
            source=self.model.source,
            context_length=self.model.context_length,
            memory_bytes=self.model.memory_bytes,
        )
        deployment = deployment_pb2.CreateDeploymentRequest(model=self.model.name, name=self.model.name)
        try:
            await self.admin.call(model, model_pb2.CreateModelResponse)
        except CallRefused as exc:
            _only(exc, grpc.StatusCode.ALREADY_EXISTS)
        try:
            await self.admin.call(deployment, deployment_pb2.CreateDeploymentResponse)
        except CallRefused as exc:
            _only(exc, grpc.StatusCode.ALREADY_EXISTS)
        found = await progress.until_ready(
            self.admin, self.model.name, WorkersInStep(self.view), self.clock, budget_s=self.wait_budget_s
        )
        return f"{progress.ready_count(found)} of {found.replicas} workers ready"

    async def route(self) -> str:
        """Until a first token comes back through gateway, tunnel, agent and engine."""
        deadline = self.clock.monotonic() + ROUTE_BUDGET_S
        while True:
            try:
                timing = await self._ask("Hello", max_tokens=1, on_text=lambda _: None)
                return f"first token after {timing.first_token_s:.2f} s"
            except chat.NotServed as exc:
                self.view.progress(str(exc))
                if self.clock.monotonic() >= deadline:
                    raise
                await self.clock.sleep(POLL_S)

    async def ask(self) -> str:
        """One question; the answer goes to stdout as it comes."""
        with Answer() as answer:
            return (await self._ask(self.question, max_tokens=ANSWER_TOKENS, on_text=self._onto(answer))).line

    async def _ask(self, prompt: str, *, max_tokens: int, on_text: Callable[[str], None]) -> chat.Timing:
        question = chat.Question(model=self.model.name, prompt=prompt, max_tokens=max_tokens)
        # By loopback: others come to the advertised address, which may not lead here from here.
        url = f"http://{LOOPBACK}:{self._http_port}/v1"
        return await chat.ask(question, base_url=url, api_key=self.api_key, clock=self.clock, on_text=on_text)

    def _onto(self, answer: Answer) -> Callable[[str], None]:
        asked = False

        def write(piece: str) -> None:
            nonlocal asked
            if not asked:
                self.view.pause()  # the answer has the terminal now
                say(f"  {self.question}")
                asked = True
            answer.write(piece)

        return write

    async def stay(self) -> None:
        """Keep every certificate good for as long as the mesh runs. Never returns."""
        while True:
            await self.clock.sleep(RENEW_EVERY_S)
            try:
                if made := await self.identities.ensure():
                    self.view.note(f"new certificates for {', '.join(made)}")
                await self._rejoin_in_time()
            except (CommandFailed, OSError) as exc:  # hours are left; it is tried again in minutes
                self.view.note(f"certificates were not renewed: {exc}")

    async def _rejoin_in_time(self) -> None:
        if identity.load(self.plan.layout.agent / "identity").not_after - self.clock.now() > REJOIN_BEFORE:
            return
        self.view.note("the node's certificate ends soon; this machine joins again")
        target = Target(self.admin.endpoint, self.plan.layout.operator)
        async with connect(target, self.clock) as self._admin:
            await self.supervisor.stop(AGENT)
            try:
                await self.join()
            finally:
                self.supervisor.start(self.plan.agent())

    async def _known_key(self, path: Path) -> str | None:
        if not path.exists():
            return None
        text = read_key(path)
        try:
            request = api_key_pb2.GetApiKeyRequest(key_id=api_keys.parse(text).id)
            await self.admin.call(request, api_key_pb2.GetApiKeyResponse)
        except InvalidInput:
            return None
        except CallRefused as exc:
            _only(exc, grpc.StatusCode.NOT_FOUND)
            return None
        return text

    async def _new_key(self, path: Path) -> str:
        request = api_key_pb2.CreateApiKeyRequest(organization=ORGANIZATION, name="meshctl-up")
        made = await self.admin.call(request, api_key_pb2.CreateApiKeyResponse)
        write_private(path, made.secret_key.encode() + b"\n")
        return made.secret_key

    async def _announce(self, key_file: Path) -> None:
        layout = self.plan.layout
        operator = identity.load(layout.operator)
        running.write(
            layout.root,
            RunningMesh(
                endpoint=self.admin.endpoint,
                identity=str(layout.operator),
                server_name=operator.control_plane_name,
                base_url=self.base_url,
                api_key_file=str(key_file),
                model=self.model.name,
            ),
        )

    async def _node(self, node_id: str) -> node_pb2.Node | None:
        try:
            return (await self.admin.call(node_pb2.GetNodeRequest(node_id=node_id), node_pb2.GetNodeResponse)).node
        except CallRefused as exc:
            _only(exc, grpc.StatusCode.NOT_FOUND)
            return None

    async def _is_known(self, node_id: str) -> bool:
        node = await self._node(node_id)
        return node is not None and state_of(node) != "revoked"


def _only(exc: CallRefused, status: grpc.StatusCode) -> None:
    """That refusal is expected; any other is one."""
    if exc.status is not status:
        raise exc
