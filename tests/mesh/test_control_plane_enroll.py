"""Joining: one token, one node, one answer to everyone else."""

import asyncio
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.admin.v1 import join_token_pb2, node_pb2
from mesh.enroll.v1 import enroll_pb2
from pki import tokens
from pki.bundle import identity_of, load_certificates
from pki.csr import MAX_CSR, make_csr, new_key
from pki.names import Kind
from tests.mesh.control_plane_clients import status_of
from tests.mesh.control_plane_harness import Joined, Plane, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_input")
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, "join_refused")


def request(token: str, **fields: Any) -> enroll_pb2.JoinRequest:
    said = {"csr_der": make_csr(new_key()), "hostname": "box", "agent_version": "0.1.0", **fields}
    return enroll_pb2.JoinRequest(token=token, **said)


async def nodes_of(plane: Plane) -> set[str]:
    return {node.node_id for node in (await plane.nodes.ListNodes(node_pb2.ListNodesRequest())).nodes}


async def test_the_certificate_names_the_node_that_the_server_made(plane: Plane) -> None:
    joined = await plane.join()
    leaf, issuer = load_certificates(joined.chain_pem)
    assert (identity_of(leaf).kind, identity_of(leaf).id) == (Kind.NODE, joined.node_id)
    assert leaf.public_key() == joined.key.public_key()
    leaf.verify_directly_issued_by(issuer)
    assert joined.node_id in await nodes_of(plane)


async def test_whatever_the_request_asks_to_be_called_is_ignored(plane: Plane) -> None:
    key = new_key()
    boastful = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "control-plane")]))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://mesh.local/operator/root")]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    reply = await plane.enroll().Join(request(await plane.token(), csr_der=boastful.public_bytes(Encoding.DER)))
    leaf = load_certificates(reply.certificate_chain_pem)[0]
    assert identity_of(leaf).kind is Kind.NODE
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


async def test_a_token_used_200_times_at_once_makes_one_node(plane: Plane) -> None:
    before, token = await nodes_of(plane), await plane.token()
    stubs = [plane.enroll() for _ in range(8)]

    async def one(number: int) -> tuple[grpc.StatusCode, str]:
        return await status_of(stubs[number % 8].Join(request(token)))

    outcomes = await asyncio.gather(*(one(number) for number in range(200)))
    assert outcomes.count((grpc.StatusCode.OK, "")) == 1
    assert outcomes.count(REFUSED) == 199
    assert len(await nodes_of(plane) - before) == 1


async def test_a_token_of_three_uses_makes_three_nodes(plane: Plane) -> None:
    before, token = await nodes_of(plane), await plane.token(uses=3)
    outcomes = await asyncio.gather(*(status_of(plane.enroll().Join(request(token))) for _ in range(6)))
    assert outcomes.count(REFUSED) == 3
    assert len(await nodes_of(plane) - before) == 3


async def test_the_same_key_may_ask_again_until_its_node_has_connected(plane: Plane) -> None:
    token, key = await plane.token(), new_key()
    first = await plane.join(token, key)
    again = await plane.join(token, key)
    assert again.node_id == first.node_id
    assert again.chain_pem != first.chain_pem
    for joined in (first, again):  # both certificates are good: whichever reply arrived
        node = await plane.connect(joined)
        await node.welcome()
        await node.hang_up()
    assert await status_of(plane.join(token, key)) == REFUSED


async def test_every_refusal_reads_alike_and_the_audit_log_tells_them_apart(plane: Plane) -> None:
    spent = await plane.token()
    await plane.join(spent)
    revoked = await plane.token()
    await plane.join_tokens.DeleteJoinToken(
        join_token_pb2.DeleteJoinTokenRequest(token_id=tokens.parse(revoked).id)
    )
    wrong_secret = tokens.JoinToken(tokens.parse(await plane.token()).id, tokens.new_secret()).reveal()
    unknown = tokens.new_token().reveal()
    answers = set()
    for token in (spent, revoked, wrong_secret, unknown):
        call = plane.enroll().Join(request(token))
        answers.add((*await status_of(call), await call.details()))
    assert answers == {(*REFUSED, "the token is unknown, expired, used or revoked")}
    actions = {
        row.action for row in await plane.audit() if "refus" in row.action or row.action.startswith("token")
    }
    assert {"token_replay", "token_revoked"} <= actions


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("token", {"token": ""}),
        ("token", {"token": "inv1_x"}),
        ("token", {"token": "x" * 10_000}),
        ("token", {"token": tokens.new_token().reveal()[:-1] + "z"}),
        ("csr_der", {"csr_der": b""}),
        ("csr_der", {"csr_der": b"\x30\x00"}),
        ("csr_der", {"csr_der": b"\x00" * (MAX_CSR + 1)}),
        ("csr_der", {"csr_der": make_csr(new_key())[:-3] + b"abc"}),
        ("hostname", {"hostname": "a" * 65}),
        ("hostname", {"hostname": "a\nb"}),
        ("agent_version", {"agent_version": "\x1b[31m"}),
    ],
    ids=[f"{number}" for number in range(11)],  # not the values: some are random, and workers must agree
)
async def test_bad_input_is_refused_naming_the_field_and_spends_nothing(
    plane: Plane, field: str, fields: dict[str, Any]
) -> None:
    token = await plane.token()
    call = plane.enroll().Join(request(**{"token": token, **fields}))
    assert await status_of(call) == INVALID
    assert (await call.details()).startswith(f"{field}: ")
    await plane.join(token)


async def test_a_key_of_another_kind_is_refused(plane: Plane) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
        assert await status_of(plane.enroll().Join(request(await plane.token(), csr_der=der))) == INVALID


async def test_a_request_signed_by_another_key_is_refused(plane: Plane) -> None:
    der = bytearray(make_csr(new_key()))
    der[-1] ^= 1
    assert await status_of(plane.enroll().Join(request(await plane.token(), csr_der=bytes(der)))) == INVALID


async def test_the_trust_bundle_is_for_everyone(plane: Plane) -> None:
    reply = await plane.enroll().GetTrustBundle(enroll_pb2.GetTrustBundleRequest())
    assert reply.trust_domain == "mesh.local"
    assert reply.trust_bundle_pem == plane.mesh.bundle_pem


async def test_an_address_that_knocks_too_often_is_told_when_to_return() -> None:
    async with running(join_rate=0.001, join_burst=3) as strict:
        stub = strict.enroll()
        for _ in range(3):
            await stub.GetTrustBundle(enroll_pb2.GetTrustBundleRequest())
        call = stub.GetTrustBundle(enroll_pb2.GetTrustBundleRequest())
        assert await status_of(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_requests")
        assert float((await call.trailing_metadata())["mesh-retry-after"]) > 1
        _, page = await strict.http("/metrics")
        assert 'inventiv_control_plane_joins_total{outcome="limited"} 1.0' in page


async def test_tokens_that_nobody_made_are_audited_once_an_hour_and_address() -> None:
    async with running() as plane:
        for _ in range(5):
            assert await status_of(plane.enroll().Join(request(tokens.new_token().reveal()))) == REFUSED
        rows = [row for row in await plane.audit() if row.action == "token_unknown"]
        assert [(row.actor, row.detail["count"]) for row in rows] == [("address/127.0.0.1", 1)]
        assert rows[0].object_.startswith("join_token/")


async def test_an_address_that_guesses_is_shut_out_even_with_a_good_token() -> None:
    async with running(join_failures=3) as strict:
        good = await strict.token()
        for _ in range(3):
            assert await status_of(strict.enroll().Join(request(tokens.new_token().reveal()))) == REFUSED
        status = await status_of(strict.enroll().Join(request(good)))
        assert status == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_requests")


async def test_secrets_are_not_in_the_database(plane: Plane) -> None:
    token = await plane.token()
    joined: Joined = await plane.join(token)
    dump = await plane.dump()
    assert joined.node_id in dump
    assert tokens.parse(token).secret not in dump
