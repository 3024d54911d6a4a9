"""Channel options: names that gRPC knows, values that agree with each other, and whom a client believes."""

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mesh.link.frames import MAX_BATCH
from mesh.tunnel.v1.tunnel_pb2_grpc import TunnelServiceStub
from mesh.wire.channel import (
    CONTROL_CHANNEL_OPTIONS,
    CONTROL_SERVER_OPTIONS,
    DATA_CHANNEL_OPTIONS,
    DATA_SERVER_OPTIONS,
    SNAPSHOT_CHANNEL_OPTIONS,
    SNAPSHOT_MESSAGE,
    SNAPSHOT_SERVER_OPTIONS,
    Options,
    secure_channel,
)

ALL = {
    "control channel": CONTROL_CHANNEL_OPTIONS,
    "data channel": DATA_CHANNEL_OPTIONS,
    "control server": CONTROL_SERVER_OPTIONS,
    "data server": DATA_SERVER_OPTIONS,
    "snapshot channel": SNAPSHOT_CHANNEL_OPTIONS,
    "snapshot server": SNAPSHOT_SERVER_OPTIONS,
}


@pytest.mark.parametrize("options", ALL.values(), ids=ALL.keys())
def test_every_option_is_one_that_grpc_knows(options: Options) -> None:
    """gRPC ignores what it does not know: a misspelt option would say nothing."""
    spec = find_spec("grpc._cython.cygrpc")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).read_bytes()
    assert len(dict(options)) == len(options)
    assert [name for name, _ in options if name.encode() + b"\0" not in library] == []


def test_a_silent_peer_is_noticed_in_time_and_pings_are_welcome() -> None:
    for options in map(dict, ALL.values()):
        time, timeout = int(options["grpc.keepalive_time_ms"]), int(options["grpc.keepalive_timeout_ms"])
        assert time + timeout <= 15_000
        assert options["grpc.http2.ping_timeout_ms"] == timeout
    for server in (CONTROL_SERVER_OPTIONS, DATA_SERVER_OPTIONS):
        welcome = int(dict(server)["grpc.http2.min_ping_interval_without_data_ms"])
        assert welcome < int(dict(CONTROL_CHANNEL_OPTIONS)["grpc.keepalive_time_ms"])


def test_a_whole_batch_fits_into_a_message() -> None:
    for options in map(dict, (DATA_CHANNEL_OPTIONS, DATA_SERVER_OPTIONS)):
        assert int(options["grpc.max_receive_message_length"]) >= MAX_BATCH + 16
        assert int(options["grpc.max_send_message_length"]) >= MAX_BATCH + 16


def test_a_snapshot_that_may_be_sent_may_be_received() -> None:
    assert dict(SNAPSHOT_SERVER_OPTIONS)["grpc.max_send_message_length"] == SNAPSHOT_MESSAGE
    assert dict(SNAPSHOT_CHANNEL_OPTIONS)["grpc.max_receive_message_length"] == SNAPSHOT_MESSAGE


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for control-plane.mesh.local, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("control-plane.mesh.local")]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(pem),
    )


@pytest.mark.parametrize(
    ("server_name", "code"),
    [
        ("control-plane.mesh.local", grpc.StatusCode.UNIMPLEMENTED),
        ("gateway.mesh.local", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_server_must_prove_the_name_that_was_asked_for_not_its_address(
    certificate: tuple[bytes, bytes], server_name: str, code: grpc.StatusCode
) -> None:
    key, chain = certificate
    server = grpc.aio.server(options=CONTROL_SERVER_OPTIONS)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    try:
        credentials = grpc.ssl_channel_credentials(chain)
        async with secure_channel(f"127.0.0.1:{port}", credentials, server_name=server_name) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await TunnelServiceStub(channel).Attach(timeout=10).read()
            assert caught.value.code() is code
    finally:
        await server.stop(None)
