"""What a client may be told beyond the errors every process knows. Statuses are the edge's business."""

from mesh.kit.errors import InvalidInput, MeshError, Unavailable


class UnknownRoute(MeshError):
    """Nothing is served under that method and path."""

    code = "unknown_url"


class MethodNotAllowed(MeshError):
    """The path exists, but not for that method."""

    code = "method_not_allowed"

    def __init__(self, text: str, *, allowed: str) -> None:
        super().__init__(text)
        self.allowed = allowed


class UnsupportedMediaType(MeshError):
    """The body is not JSON, or is compressed."""

    code = "unsupported_media_type"


class BodyTooLarge(MeshError):
    """The body is longer than we read."""

    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes")


class RequestTimeout(MeshError):
    """The client did not send its request in time."""

    code = "request_timeout"


class MalformedBody(InvalidInput):
    """The body is no JSON object at all, so that no field can be named."""

    code = "invalid_json"

    def __init__(self, problem: str) -> None:
        super().__init__("body", problem)


class NotReady(Unavailable):
    """No snapshot has come from the control plane yet, and none was kept."""

    code = "gateway_not_ready"


class Draining(Unavailable):
    """This gateway is on its way out."""

    code = "gateway_draining"


class Overloaded(Unavailable):
    """This gateway holds as much as it may."""

    code = "gateway_overloaded"


class SpoolUnavailable(Unavailable):
    """Usage cannot be written down, so nothing may be served."""

    code = "usage_spool_unavailable"


class NoReadyWorker(Unavailable):
    """The model exists, and nobody serves it at the moment."""

    code = "no_ready_worker"

    def __init__(self, model: str) -> None:
        super().__init__(f"no worker is ready for the model {model!r}")


class WorkersBusy(MeshError):
    """Every worker of the model refused for want of room."""

    code = "workers_busy"
    retryable = True

    def __init__(self, model: str) -> None:
        super().__init__(f"every worker of the model {model!r} is busy")


class UpstreamFailed(Unavailable):
    """The engine, or the way to it, failed before an answer began."""

    code = "upstream_failed"


class UpstreamLost(Unavailable):
    """The answer broke off."""

    code = "upstream_lost"


class UpstreamTimeout(Unavailable):
    """The engine took too long to begin, or fell silent."""

    code = "upstream_timeout"


class ClientStalled(MeshError):
    """The client took nothing off our hands for too long."""

    code = "client_stalled"
