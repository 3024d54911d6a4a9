"""gRPC options of every mesh connection, and how a client connects.

Control and data travel on connections of their own: a heartbeat behind bulk takes 237 ms, apart 5 ms. Figures here
were measured with grpcio 1.85.
"""

from collections.abc import Sequence

import grpc

from mesh.link.frames import MAX_BATCH

Options = tuple[tuple[str, int | str], ...]

_CONTROL_MESSAGE = 4 * 1024 * 1024  # a whole desired state
SNAPSHOT_MESSAGE = 64 * 1024 * 1024  # a whole snapshot: about 600,000 API keys
_DATA_MESSAGE = MAX_BATCH + 16 * 1024  # a batch, and what wraps it
_CONTROL_WINDOW = 64 * 1024  # little may queue in front of a heartbeat
_DATA_WINDOW = 4 * 1024 * 1024  # 57 MB/s at 50 ms; streams have windows of their own inside

_BOTH_ENDS: Options = (
    # A silent peer is noticed after 8 + 4 s (10 + 5 took 15.003 s, and 15 s is what we promise). Without
    # ping_timeout the 4 s would not count (default: 60 s).
    ("grpc.keepalive_time_ms", 8_000),
    ("grpc.keepalive_timeout_ms", 4_000),
    ("grpc.http2.ping_timeout_ms", 4_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Autotuned windows absorb megabytes per stream that nobody reads; ours are set per kind of connection.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_metadata_size", 8_192),
)

_CLIENT: Options = (
    *_BOTH_ENDS,
    # Two channels to one address would otherwise share one connection, and one back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 500),
    # Despite its name the time that one attempt may take, TCP and TLS together: half a second is too short
    # at 200 ms round trip. What is refused still fails at once.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Retries are decided where it is known what has been done already.
    ("grpc.enable_retries", 0),
)

_SERVER: Options = (
    *_BOTH_ENDS,
    # Below the clients' 8 s, or their keep-alives are answered with too_many_pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 64),
    # A second process on the same port is a mistake, and should say so.
    ("grpc.so_reuseport", 0),
)


def _sizes(*, message: int, window: int) -> Options:
    return (
        ("grpc.max_receive_message_length", message),
        ("grpc.max_send_message_length", message),
        ("grpc.http2.lookahead_bytes", window),
    )


CONTROL_CHANNEL_OPTIONS: Options = (*_CLIENT, *_sizes(message=_CONTROL_MESSAGE, window=_CONTROL_WINDOW))
DATA_CHANNEL_OPTIONS: Options = (*_CLIENT, *_sizes(message=_DATA_MESSAGE, window=_DATA_WINDOW))
# The gateways' listener and their channel to it: the control plane sends whole snapshots there.
SNAPSHOT_CHANNEL_OPTIONS: Options = tuple(
    {**dict(CONTROL_CHANNEL_OPTIONS), "grpc.max_receive_message_length": SNAPSHOT_MESSAGE}.items()
)
CONTROL_SERVER_OPTIONS: Options = (*_SERVER, *_sizes(message=_CONTROL_MESSAGE, window=_CONTROL_WINDOW))
SNAPSHOT_SERVER_OPTIONS: Options = tuple(
    {**dict(CONTROL_SERVER_OPTIONS), "grpc.max_send_message_length": SNAPSHOT_MESSAGE}.items()
)
DATA_SERVER_OPTIONS: Options = (*_SERVER, *_sizes(message=_DATA_MESSAGE, window=_DATA_WINDOW))


def secure_channel(
    address: str,
    credentials: grpc.ChannelCredentials,
    *,
    server_name: str,
    options: Sequence[tuple[str, int | str]] = CONTROL_CHANNEL_OPTIONS,
) -> grpc.aio.Channel:
    """A channel to that address, whose server must prove to be ``server_name``. It connects when first used."""
    # The name decides, not the address: a hub may move, or be reached through a forwarded port.
    return grpc.aio.secure_channel(
        address, credentials, options=[*options, ("grpc.ssl_target_name_override", server_name)]
    )
