"""The simulator's endpoints that draw no tokens: embeddings, rerank, score, classify, tokenize, audio.

Vectors and scores are pure functions of seed and text: equal texts are equal, and texts that share words are near.
"""

import base64
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from typing import Any, Final

from node_agent.engines.simulator_call import Call, Refused, dump
from node_agent.engines.simulator_prompt import conversation, flat, prompts
from node_agent.engines.simulator_scheduler import Job
from node_agent.engines.simulator_text import count, split

DIMENSIONS: Final = 64
LABELS: Final = ("LABEL_0", "LABEL_1")


@lru_cache(maxsize=4096)
def _direction(seed: int, word: str) -> tuple[float, ...]:
    digest = blake2b(b"%d:%b" % (seed, word.encode("utf-8", "surrogatepass")), digest_size=DIMENSIONS).digest()
    return tuple(octet - 127.5 for octet in digest)


def vector(seed: int, text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A vector of length 1."""
    words = text.split() or [""]
    total = [sum(column) for column in zip(*(_direction(seed, word) for word in words), strict=True)]
    total = (total * (dimensions // DIMENSIONS + 1))[:dimensions]
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def likeness(seed: int, one: str, other: str) -> float:
    """How near two texts are, 0 to 1."""
    pairs = zip(vector(seed, one), vector(seed, other), strict=True)
    return min(1.0, max(0.0, (1.0 + sum(left * right for left, right in pairs)) / 2))


def _reads(call: Call, texts: Sequence[str], answer: Any) -> None:
    words = [word for text in texts for word in text.split()]
    if call.sim.context and max((count(text) for text in texts), default=0) > call.sim.context:
        raise Refused(f"This model's maximum context length is {call.sim.context} tokens.", param="input_tokens")

    def done(job: Job) -> None:
        size = len(job.prompt)
        counts = {
            "prompt_tokens": size,
            "total_tokens": size,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
        call.json({**answer, "usage": counts})

    call.run(words, done=done)


def _texts(call: Call) -> list[str]:
    if call.body.get("messages") is not None:
        return [" ".join(conversation(call.body["messages"]).tokens)]
    return prompts(call.need("input"), call.sim.words.word)


def embeddings(call: Call) -> None:
    """POST /v1/embeddings and /pooling."""
    texts = _texts(call)
    dimensions = call.get("dimensions", int, DIMENSIONS)
    if not 1 <= dimensions <= 4096:
        raise Refused("dimensions must be between 1 and 4096", param="dimensions")
    coding = call.get("encoding_format", str, "float")
    if coding not in ("float", "base64"):
        raise Refused("encoding_format: Input should be 'float' or 'base64'", param="encoding_format")
    pooling = call.request.path == "/pooling"
    rows = []
    for index, text in enumerate(texts):
        values: Any = vector(call.sim.options.seed, text, dimensions)
        if coding == "base64":
            values = base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
        name = ("pooling", "data") if pooling else ("embedding", "embedding")
        rows.append({"index": index, "object": name[0], name[1]: values})
    frame = {"id": call.id, "object": "list", "created": call.created, "model": call.model, "data": rows}
    _reads(call, texts, frame)


def classify(call: Call) -> None:
    """POST /classify."""
    texts = _texts(call)
    rows = []
    for index, text in enumerate(texts):
        share = likeness(call.sim.options.seed, text, LABELS[0])
        odds = [share, 1 - share]
        rows.append({"index": index, "label": LABELS[odds.index(max(odds))], "probs": odds, "num_classes": 2})
    _reads(
        call, texts, {"id": call.id, "object": "list", "created": call.created, "model": call.model, "data": rows}
    )


def rerank(call: Call) -> None:
    """POST /rerank, /v1/rerank, /v2/rerank."""
    query, documents = flat(call.need("query")), call.need("documents")
    if not isinstance(documents, list) or not documents:
        raise Refused("documents: Input should be a list of at least one document", param="documents")
    texts = [flat([one]) for one in documents]
    top = call.get("top_n", int, 0) or len(texts)
    scores = [likeness(call.sim.options.seed, query, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-scores[index], index))[:top]
    rows = [
        {"index": index, "document": {"text": texts[index], "multi_modal": None}, "relevance_score": scores[index]}
        for index in order
    ]
    _reads(call, [f"{query} {text}" for text in texts], {"id": call.id, "model": call.model, "results": rows})


def score(call: Call) -> None:
    """POST /score, /v1/score."""
    left = _several(call, "text_1", "queries")
    right = _several(call, "text_2", "documents")
    if len(left) not in (1, len(right)):
        raise Refused("Input lengths must be either 1:1, 1:N or N:N", param="text_1")
    pairs = list(zip(left * (len(right) if len(left) == 1 else 1), right, strict=True))
    rows = [
        {"index": index, "object": "score", "score": likeness(call.sim.options.seed, one, other)}
        for index, (one, other) in enumerate(pairs)
    ]
    frame = {"id": call.id, "object": "list", "created": call.created, "model": call.model, "data": rows}
    _reads(call, [f"{one} {other}" for one, other in pairs], frame)


def _several(call: Call, *names: str) -> list[str]:
    value = next((call.body[name] for name in names if call.body.get(name) is not None), None)
    if value is None:
        raise Refused(f"{names[0]}: field required", param=names[0])
    return [flat([one]) for one in value] if isinstance(value, list) else [flat(value)]


def tokenize(call: Call) -> None:
    """POST /tokenize. Needs no slot."""
    if call.body.get("messages") is not None:
        tokens = conversation(call.body["messages"], begin=call.get("add_generation_prompt", bool, True)).tokens
    else:
        tokens = [token.strip() for text in prompts(call.need("prompt")) for token in split(text)]
    numbers = [call.sim.words.number(token) for token in tokens]
    call.json({
        "count": len(numbers), "max_model_len": call.sim.context or 1 << 20, "tokens": numbers,
        "token_strs": tokens if call.get("return_token_strs", bool, False) else None,
    })  # fmt: skip


def detokenize(call: Call) -> None:
    """POST /detokenize. Words are joined by one space."""
    numbers = call.need("tokens")
    if not isinstance(numbers, list) or not all(isinstance(one, int) for one in numbers):
        raise Refused("tokens: Input should be a list of integers", param="tokens")
    call.json({"prompt": " ".join(call.sim.words.word(one) or f"<{one}>" for one in numbers)})


def audio(call: Call) -> None:
    """POST /v1/audio/transcriptions and /translations: says how large the file is, and how its SHA-256 begins."""
    data = call.body.get("file")
    if not isinstance(data, bytes):
        raise Refused("file: field required", param="file")
    text = f"A file of {len(data)} octets whose checksum begins with {sha256(data).hexdigest()[:12]}."
    kind = call.body.get("response_format") or "json"

    def done(job: Job) -> None:
        if kind == "text":
            call.reply.whole(200, dump(text).encode(), "text/plain; charset=utf-8")
        else:
            call.json({"text": text, "usage": {"type": "duration", "seconds": max(1, len(data) // 32000)}})

    def events(job: Job) -> None:
        frame = {"id": call.id, "object": "transcription.chunk", "created": call.created, "model": call.model}
        deltas: list[object] = [{"delta": {"content": token}, "finish_reason": None} for token in split(text)]
        deltas.append({"delta": {"content": ""}, "finish_reason": "stop"})
        body = "".join(f"data: {dump({**frame, 'choices': [delta]})}\n\n" for delta in deltas)
        call.reply.begin()
        call.reply.send(body.encode() + b"data: [DONE]\n\n")
        call.reply.end()

    call.run([str(zlib.crc32(data))], done=events if call.body.get("stream") in ("true", "True", "1") else done)


def form(content_type: str, body: bytes) -> Mapping[str, Any]:
    """The fields of a multipart form: the file as octets, everything else as text. Refused when it is none."""
    boundary = next(
        (part.strip()[9:].strip('"') for part in content_type.split(";") if part.strip().startswith("boundary=")),
        "",
    )
    if not content_type.startswith("multipart/form-data") or not boundary:
        raise Refused("the body should be multipart/form-data")
    fields: dict[str, Any] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1"))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name = text.partition(' name="')[2].partition('"')[0]
        fields[name] = content if "filename=" in text else content.decode("utf-8", "replace")
    return fields


def parsed(body: bytes) -> Mapping[str, Any]:
    """A JSON object. Refused when it is none."""
    try:
        value = json.loads(body)
    except ValueError as exc:  # not JSON, or not UTF-8
        raise Refused(f"JSON decode error: {exc}") from None
    except RecursionError:
        raise Refused("JSON decode error: nested too deeply") from None
    if not isinstance(value, dict):
        raise Refused("Input should be a valid dictionary")
    return value
