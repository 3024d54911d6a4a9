"""How a command of meshctl fails: one line for people, one exit code for scripts.

0 done · 1 refused, not found or unreachable · 2 bad input · 130 interrupted
"""

from collections.abc import Sequence

import grpc
import grpc.aio

from mesh.kit.errors import MeshError

REFUSED = 1
BAD_INPUT = 2
INTERRUPTED = 130

REASON_KEY = "mesh-reason"  # trailing metadata of every refusal the control plane makes on purpose


class CommandFailed(MeshError):
    """The command ends here. The text is one line; ``exit_code`` is what the shell sees."""

    code = "command_failed"

    def __init__(self, line: str, *, exit_code: int = REFUSED) -> None:
        super().__init__(one_line(line))
        self.exit_code = exit_code


class BadInput(CommandFailed):
    """What was typed is outside its limits; the line names the field and the limit."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", exit_code=BAD_INPUT)


class CallRefused(CommandFailed):
    """The control plane answered, and the answer is no."""

    def __init__(self, status: grpc.StatusCode, line: str) -> None:
        super().__init__(line, exit_code=BAD_INPUT if status in _BAD_INPUT else REFUSED)
        self.status = status


class Unreachable(CommandFailed):
    """Nobody answered, or nobody we trust."""


def one_line(text: str) -> str:
    """The text with every run of white space and control characters as one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_BAD_INPUT = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})

_WORDS = {
    grpc.StatusCode.UNAUTHENTICATED: "the control plane does not accept this identity",
    grpc.StatusCode.PERMISSION_DENIED: "not allowed for this identity",
    grpc.StatusCode.UNIMPLEMENTED: "this control plane does not know the call; is it older than meshctl?",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too many requests; try again shortly",
    grpc.StatusCode.INTERNAL: "the control plane failed; its log says why",
    grpc.StatusCode.UNKNOWN: "the control plane failed; its log says why",
}

_HINTS = (
    ("certificate_expired", "the certificate expired; `mesh-pki issue operator` makes a new one"),
    ("certificate has expired", "the certificate expired; `mesh-pki issue operator` makes a new one"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not signed by this identity's trust bundle"),
    ("Handshake failed", "TLS was refused; is this the admin listener, and the identity an operator's?"),
    ("handshake failed", "TLS was refused; is this the admin listener, and the identity an operator's?"),
    ("Socket closed", "it hung up; is this the admin listener, and does its mesh know this identity?"),
    ("Connection refused", "nothing listens there"),
    ("name resolution", "the host name does not resolve"),
    ("DNS", "the host name does not resolve"),
)

_NEXT_STEP = "start one with `meshctl up`, or point --endpoint at one"


def from_status(exc: grpc.aio.AioRpcError, endpoint: str) -> CommandFailed:
    """The failure that a call's status stands for."""
    status, details = exc.code(), exc.details() or ""
    deliberate = any(key == REASON_KEY for key, _ in _trailing(exc))
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable(f"the control plane at {endpoint} does not answer in time; {_NEXT_STEP}")
    if status is grpc.StatusCode.UNAVAILABLE and not deliberate:
        why = next((words for mark, words in _HINTS if mark in details), details or "no connection")
        return Unreachable(f"the control plane at {endpoint} is unreachable ({why}); {_NEXT_STEP}")
    words = _WORDS.get(status)
    return CallRefused(status, ": ".join(part for part in (words, details) if part) or status.name.lower())


def _trailing(exc: grpc.aio.AioRpcError) -> Sequence[tuple[str, str | bytes]]:
    return tuple(exc.trailing_metadata() or ())
