"""An answer on stdout while it is being made: flushed token by token, and harmless to a terminal."""

from types import TracebackType


class Answer:
    """Writes pieces of text; ends the last line whatever happens, so that what follows has its own."""

    def __init__(self) -> None:
        self._open_line = False

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open_line and not isinstance(exc, BrokenPipeError):
            print(flush=True)

    def write(self, piece: str) -> None:
        """Show a piece at once. What a terminal would act on, a model cannot make it do."""
        clean = "".join(c for c in piece if c.isprintable() or c in "\n\t")
        if clean:
            print(clean, end="", flush=True)
            self._open_line = not clean.endswith("\n")
