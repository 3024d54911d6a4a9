"""What a command prints: tables for people, JSON for machines. Answers go to stdout, everything else to stderr.

JSON is the protobuf JSON of the API's own messages with the schema's field names: as stable as the schema.
Text that came from elsewhere (host names, errors of engines) never reaches the terminal as control characters.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000  # no folding when a program reads the table

_STYLES = {
    "ready": "green",
    "online": "green",
    "active": "green",
    "starting": "yellow",
    "warming": "yellow",
    "pending": "yellow",
    "joining": "yellow",
    "draining": "yellow",
    "failed": "red",
    "offline": "red",
    "revoked": "red",
    "expired": "red",
}


def say(line: str = "") -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text without anything a terminal would act on."""
    return "".join(c if c.isprintable() else "�" for c in text)


def show_json(message: Message) -> None:
    """One message, every field present, in the schema's order."""
    row = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    print(json.dumps(row, indent=2, ensure_ascii=False), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows under headings; ``empty`` says on stderr what to do when there are none."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(text) for text in row))
    if table.row_count == 0:
        say(empty)
        return
    _print(table)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Name and value, one a line; facts without a value are left out."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, _cell(value))
    _print(table)


def _cell(text: str) -> Text:
    return Text(printable(text), style=_STYLES.get(text, ""))


def _print(table: Table) -> None:
    if sys.stdout.isatty():
        Console(highlight=False).print(table)
        return
    text = StringIO()
    Console(file=text, width=PIPE_WIDTH, color_system=None, highlight=False).print(table)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()), flush=True)


def moment(stamp: Timestamp) -> datetime:
    """A protobuf timestamp as an aware datetime."""
    return stamp.ToDatetime(tzinfo=UTC)


def span(length: timedelta) -> str:
    """A length of time in the one or two units that matter: ``42s``, ``3m``, ``5h``, ``12d``."""
    seconds = int(abs(length.total_seconds()))
    for unit, octave, name in ((60, 1, "s"), (3600, 60, "m"), (2 * 86400, 3600, "h")):
        if seconds < unit:
            return f"{seconds // octave}{name}"
    return f"{seconds // 86400}d"


def ago(message: Message, field: str, now: datetime) -> str:
    """How long ago that field's moment was, or ``-`` when it is not set."""
    if not message.HasField(field):
        return "-"
    return f"{span(now - moment(getattr(message, field)))} ago"


def until(message: Message, field: str, now: datetime, *, never: str = "never") -> str:
    """How far away that field's moment is: ``in 3h``, ``2m ago``, or ``never``."""
    if not message.HasField(field):
        return never
    at = moment(getattr(message, field))
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def euros(nano: int) -> str:
    """Nano-units of the currency as a decimal: ``0.15``, ``20``."""
    whole, part = divmod(nano, 10**9)
    return f"{whole}.{part:09}".rstrip("0").rstrip(".")


def size(octets: int) -> str:
    """Bytes in the largest unit that keeps them readable: ``512 MiB``, ``1.5 GiB``."""
    value, units = float(octets), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1024 or unit == units[-1]:
            return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")
