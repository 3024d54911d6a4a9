"""One stream of a Mux: its windows, what waits to go out, and how far its life has come.

Life: a stream is *open* until both directions have ended, or one side resets it. It is *kept* a little longer
where something still counts against the link's limits: octets unread here, or octets outstanding there beyond
a stream's share. Both ends compute this from the same numbers, so a short answer costs no extra CREDIT.
"""

from collections import deque

from mesh.link.frames import MAX_DATA


class Flow:
    """Counters of one stream. Only the Mux and its queue touch them."""

    __slots__ = (
        "credit",
        "ending",
        "headed",
        "id",
        "owed",
        "pieces",
        "queued",
        "received_all",
        "receiving",
        "room",
        "sending",
        "sent_all",
        "short",
        "window",
    )

    def __init__(self, stream: int, window: int, *, initiator: bool) -> None:
        self.id = stream
        self.window = window
        self.credit = window  # octets we may still take from our sender
        self.room = window  # octets the peer may still send
        self.owed = 0  # octets our reader has consumed, and the peer does not know yet
        self.pieces: deque[bytes | memoryview] = deque()
        self.queued = 0  # octets in pieces
        self.headed = False
        self.sending = initiator  # the asking side may send at once, the answering side after its head
        self.receiving = not initiator
        self.ending = False  # END follows the last piece
        self.sent_all = False
        self.received_all = False
        self.short = False  # the last send took less than it was given

    @property
    def unread(self) -> int:
        """Octets received that the reader has not consumed."""
        return self.window - self.room - self.owed

    @property
    def outstanding(self) -> int:
        """Octets taken from our sender that the peer has not credited."""
        return self.window - self.credit

    @property
    def over(self) -> bool:
        """Whether both directions have ended."""
        return self.sent_all and self.received_all

    def put(self, data: bytes | memoryview) -> None:
        """Queue octets; the caller has checked the windows."""
        self.pieces.append(data)
        self.queued += len(data)
        self.credit -= len(data)

    def cut(self, most: int) -> tuple[int, list[bytes | memoryview]]:
        """Take up to a frame's worth off the queue; no octet is copied."""
        size = min(self.queued, most, MAX_DATA)
        self.queued -= size
        if not self.queued:
            parts = list(self.pieces)
            self.pieces.clear()
            return size, parts
        parts = []
        left = size
        while left:
            piece = self.pieces.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                self.pieces.appendleft(view[left:])
                piece = view[:left]
            parts.append(piece)
            left -= len(piece)
        return size, parts

    def drop_queue(self) -> None:
        """Forget what has not gone out."""
        self.pieces.clear()
        self.queued = 0
        self.ending = False
