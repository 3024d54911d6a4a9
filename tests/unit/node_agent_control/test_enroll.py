"""Joining a mesh, against a small real enrolment server over real TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.enroll.v1 import enroll_pb2 as pb
from mesh.enroll.v1.enroll_pb2_grpc import EnrollServiceServicer, add_EnrollServiceServicer_to_server
from mesh.kit.clock import Clock, WallClock
from mesh.kit.errors import InvalidInput
from node_agent.control.enroll import JoinFailed, Joining, enroll, joining
from node_agent.disk import Disk, NotEnrolled
from pki import tokens
from pki.csr import PublicKey, public_key_of, spki_sha256
from pki.names import Identity, Kind
from pki.policy import Role
from pki.tls import load_tls, server_credentials
from tests.fakes.clock import FakeClock
from tests.fakes.pki import Mesh
from tests.fakes.upstream import until

TOKEN = tokens.new_token().reveal()
NODE = "01a2070c-2f5e-7327-b953-d00f397b8236"
DAY = timedelta(hours=24)


@dataclass
class Enroller(EnrollServiceServicer):
    """Signs whoever comes with the token, unless a test says otherwise."""

    mesh: Mesh
    keys: list[str] = field(default_factory=list)
    asked: list[pb.JoinRequest] = field(default_factory=list)
    refusal: tuple[grpc.StatusCode, str] | None = None
    lose_replies: int = 0
    change: dict[str, Any] = field(default_factory=dict)
    """Fields of the answer that a test replaces."""

    bundle: str = ""
    sign_for: PublicKey | None = None
    signed_by: Mesh | None = None

    async def GetTrustBundle(self, request: pb.GetTrustBundleRequest, context: Any) -> pb.GetTrustBundleResponse:
        return pb.GetTrustBundleResponse(
            trust_bundle_pem=self.bundle or self.mesh.bundle_pem, trust_domain=self.mesh.trust_domain
        )

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinResponse:
        self.asked.append(request)
        if self.refusal is not None:
            await context.abort(*self.refusal)
        key = public_key_of(request.csr_der)
        self.keys.append(spki_sha256(key))
        issued = (
            (self.signed_by or self.mesh)
            .authorities[Role.NODE]
            .sign(
                self.sign_for or key,
                Identity(Kind.NODE, NODE, self.mesh.trust_domain),
                now=datetime.now(UTC),
                ttl=DAY,
            )
        )
        if self.lose_replies:
            self.lose_replies -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
        answer = {
            "node_id": NODE,
            "certificate_chain_pem": issued.chain_pem,
            "trust_bundle_pem": self.mesh.bundle_pem,
            "node_endpoint": "127.0.0.1:7441",
            "control_plane_server_name": "control-plane.mesh.local",
        }
        return pb.JoinResponse(**{**answer, **self.change})


@dataclass
class Running:
    service: Enroller
    mesh: Mesh
    address: str

    def asked(self, **more: str) -> Joining:
        return joining(**{"control_plane": self.address, "ca_pin": self.mesh.pin, "token": TOKEN, **more})

    async def join(self, disk: Disk, clock: Clock | None = None, **more: str) -> str:
        identity = await enroll(
            self.asked(**more), disk=disk, clock=clock or WallClock(), hostname="box" * 40, agent_version="0.1.0"
        )
        return identity.node_id


@asynccontextmanager
async def enroller(mesh: Mesh | None = None) -> AsyncIterator[Running]:
    mesh = mesh or Mesh()
    server = grpc.aio.server()
    service = Enroller(mesh)
    add_EnrollServiceServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(mesh.files(Kind.CONTROL_PLANE)))
    await server.start()
    try:
        yield Running(service, mesh, f"127.0.0.1:{port}")
    finally:
        await server.stop(0)


async def test_a_machine_joins_and_keeps_what_it_needs(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "state")
    async with enroller() as running:
        assert await running.join(disk) == NODE
    identity = disk.identity()
    assert (identity.node_id, identity.node_endpoint) == (NODE, "127.0.0.1:7441")
    assert identity.server_name == "control-plane.mesh.local"
    files = load_tls(disk.identity_dir)
    assert str(files.identity) == f"spiffe://mesh.local/node/{NODE}"
    assert files.trust_bundle_pem.decode() == running.mesh.bundle_pem
    (asked,) = running.service.asked
    assert (asked.token, asked.agent_version, len(asked.hostname)) == (TOKEN, "0.1.0", 64)


async def test_a_lost_reply_is_asked_for_again_with_the_same_key(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with enroller() as running:
        running.service.lose_replies = 1
        with pytest.raises(JoinFailed, match="repeated safely"):
            await running.join(disk)
        with pytest.raises(NotEnrolled):
            disk.identity()
        assert await running.join(Disk(tmp_path)) == NODE
        one, other = running.service.keys
        assert one == other
    assert spki_sha256(load_tls(disk.identity_dir).certificate.public_key()) == one  # type: ignore[arg-type]  # P-256


async def test_joining_anew_uses_a_new_key(tmp_path: Path) -> None:
    async with enroller() as running:
        await running.join(Disk(tmp_path))
        await running.join(Disk(tmp_path))
        one, other = running.service.keys
        assert one != other


async def test_a_damaged_leftover_key_is_made_anew(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.keep_joining_key(b"half a")
    async with enroller() as running:
        assert await running.join(disk) == NODE


async def test_a_wrong_pin_keeps_the_token_here(tmp_path: Path) -> None:
    async with enroller() as running:
        with pytest.raises(JoinFailed, match=r"not the control plane you pinned.*Nothing was sent") as caught:
            await running.join(Disk(tmp_path), ca_pin="sha256:" + "0" * 64)
        assert not running.service.asked
        assert TOKEN not in str(caught.value)


async def test_a_server_of_another_root_cannot_pretend_to_be_the_pinned_one(tmp_path: Path) -> None:
    async with enroller() as running:
        honest = Mesh()
        running.service.bundle = honest.bundle_pem  # the right root, but not the server's
        with pytest.raises(JoinFailed, match="Nothing was sent"):
            await running.join(Disk(tmp_path), ca_pin=honest.pin)
        assert not running.service.asked


async def test_an_address_where_nobody_is_says_so(tmp_path: Path) -> None:
    async with enroller() as running:
        pass
    with pytest.raises(JoinFailed, match="Check the address"):
        await running.join(Disk(tmp_path))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "token was refused"),
        (grpc.StatusCode.PERMISSION_DENIED, "token was refused"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many attempts"),
        (grpc.StatusCode.INVALID_ARGUMENT, "request was refused"),
        (grpc.StatusCode.UNAVAILABLE, "repeated safely"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
async def test_refusals_are_told_in_words(tmp_path: Path, status: grpc.StatusCode, words: str) -> None:
    async with enroller() as running:
        running.service.refusal = (status, "because")
        with pytest.raises(JoinFailed, match=words) as caught:
            await running.join(Disk(tmp_path))
        assert "because" in str(caught.value)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("off", [timedelta(days=-2), timedelta(days=2)], ids=["behind", "ahead"])
async def test_a_wrong_clock_is_named(tmp_path: Path, off: timedelta) -> None:
    clock = FakeClock(datetime.now(UTC) + off)
    async with enroller() as running:
        with pytest.raises(JoinFailed, match="clock"):
            await running.join(Disk(tmp_path), clock)
    with pytest.raises(NotEnrolled):
        Disk(tmp_path).identity()


@pytest.mark.parametrize(
    "change",
    [
        {"certificate_chain_pem": "nonsense"},
        {"certificate_chain_pem": ""},
        {"node_id": "somebody-else"},
        {"trust_bundle_pem": "nonsense"},
        {"trust_bundle_pem": Mesh().bundle_pem},
        {"node_endpoint": "nowhere"},
    ],
    ids=["no chain", "empty chain", "another node", "no bundle", "another root", "no address"],
)
async def test_an_answer_that_does_not_hold_together_changes_nothing(
    tmp_path: Path, change: dict[str, str]
) -> None:
    async with enroller() as running:
        running.service.change = change
        with pytest.raises(JoinFailed, match="makes no sense"):
            await running.join(Disk(tmp_path))
    with pytest.raises(NotEnrolled):
        Disk(tmp_path).identity()


async def test_a_certificate_for_another_key_or_of_another_authority_is_refused(tmp_path: Path) -> None:
    async with enroller() as running:
        running.service.sign_for = running.mesh.root_key.public_key()
        with pytest.raises(JoinFailed, match="another key"):
            await running.join(Disk(tmp_path))
        running.service.sign_for = None
        running.service.signed_by = Mesh()
        with pytest.raises(JoinFailed, match="another authority"):
            await running.join(Disk(tmp_path))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"control_plane": "nowhere"}, "--control-plane"),
        ({"control_plane": "host:port"}, "--control-plane"),
        ({"ca_pin": "sha256:12"}, "--ca-pin"),
        ({"ca_pin": "0" * 64}, "--ca-pin"),
        ({"token": "inv1_x"}, "token"),
        ({"token": TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1")}, "token"),
    ],
)
def test_bad_input_names_its_field(more: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        joining(**{"control_plane": "127.0.0.1:1", "ca_pin": "sha256:" + "0" * 64, "token": TOKEN, **more})
    assert caught.value.field == field


def test_the_token_is_not_printed() -> None:
    asked = joining(control_plane="127.0.0.1:1", ca_pin="sha256:" + "0" * 64, token=TOKEN)
    assert TOKEN not in repr(asked)


async def test_cancelling_a_join_leaves_a_key_to_go_on_with(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    async with enroller() as running:
        task = asyncio.create_task(running.join(disk))
        await until(lambda: disk.joining_key() is not None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        key = disk.joining_key()
        assert key is not None
        await running.join(disk)
        assert (disk.identity_dir / "tls.key").read_bytes() == key
