"""JSON logs: one line per event, constant messages, facts in fields whose names are fixed here."""

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO


class F(StrEnum):
    """Field names. A fact is called the same in every log of every process."""

    NODE = "node_id"
    WORKER = "worker_id"
    GATEWAY = "gateway_id"
    HUB = "hub_id"
    REQUEST = "request_id"
    ORGANIZATION = "organization_id"
    DEPLOYMENT = "deployment_id"
    MODEL = "model"
    EPOCH = "epoch"
    REVISION = "revision"
    CODE = "code"
    REASON = "reason"
    ADDRESS = "address"
    PART = "part"
    COUNT = "count"
    SECONDS = "seconds"
    PID = "pid"
    PATH = "path"
    KEY = "key_id"
    PROJECT = "project_id"
    ENDPOINT = "endpoint"
    STATUS = "status"
    OUTCOME = "outcome"
    STREAMED = "streamed"
    ATTEMPTS = "attempts"
    ROUTE = "route"
    TRACE = "trace_id"
    QUEUE_MS = "queue_ms"
    FIRST_TOKEN_MS = "first_token_ms"  # noqa: S105 a duration
    DURATION_MS = "duration_ms"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    CACHED_TOKENS = "cached_tokens"
    CHARGED_TOKENS = "charged_tokens"
    CHARGED_MONEY = "charged_money"
    CONTINUATIONS = "continuations"


_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, then its fields."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        row.update((str(k), v) for k, v in vars(record).items() if k not in _OWN)
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str, ensure_ascii=False)


def set_up(level: str = "info", stream: TextIO = sys.stderr) -> None:
    """Send every log of this process to the stream as JSON lines. Called once, in ``__main__``."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
