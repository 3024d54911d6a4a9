"""A pure engine whose answer is the same wherever it begins: token i is a function of i, in three dialects."""

import json
from dataclasses import dataclass, field

PROMPT_TOKENS = 11
_ODD = [
    "é", "👍", '"', "\\", "\n\n", '"}', '\\"', " data: [DONE]", '"finish_reason":null', "\u2028", " ", "\t",
    '"delta":{"content":"', "ё", ',"usage":{"prompt_tokens":1}}', "\u0000", "日本",
]  # fmt: skip


def token(at: int) -> str:
    """Mostly a word, sometimes something that takes a parser apart."""
    return _ODD[at // 5 % len(_ODD)] if at % 5 == 3 else f" w{at}"


@dataclass(slots=True)
class Engine:
    """Answers with so many tokens, unless asked for fewer. ``dialect``: vllm, simulator or llamacpp."""

    dialect: str
    tokens: int
    ascii: bool = False
    """Whether it escapes what is not ASCII."""
    spaced: bool = False
    """Whether it writes JSON with spaces."""
    completions: bool = False
    served: int = field(init=False, default=0)
    """Requests so far."""

    def text(self) -> str:
        return "".join(map(token, range(self.tokens)))

    def answer(self, body: bytes) -> bytes:
        """The whole stream for that request."""
        return b"".join(self.events(body))

    def events(self, body: bytes) -> list[bytes]:
        asked = json.loads(body)
        begun = self._begun(asked)
        at, length = 0, 0
        while length < len(begun):
            length += len(token(at))
            at += 1
        assert begun == "".join(map(token, range(at))), "a text that was not said"
        most = asked.get("max_completion_tokens") or asked.get("max_tokens") or (16 if self.completions else None)
        last = self.tokens if most is None else min(self.tokens, at + most)
        self.served += 1
        if self.dialect == "llamacpp":
            return self._llamacpp(asked, at, last)
        return self._vllm(asked, at, last)

    def _begun(self, asked: dict[str, object]) -> str:
        """The part of the answer that the request holds."""
        if self.completions:
            prompt = asked["prompt"]
            assert isinstance(prompt, str)
            assert prompt.startswith("Say: ")
            return prompt[len("Say: ") :]
        messages = asked["messages"]
        assert isinstance(messages, list)
        final = messages[-1]
        goes_on = self.dialect == "llamacpp" or (
            asked.get("continue_final_message") is True and asked.get("add_generation_prompt") is False
        )
        if final["role"] != "assistant":
            assert not asked.get("continue_final_message")
            return ""
        assert goes_on
        assert [one["role"] for one in messages].count("assistant") == 1
        text: str = final["content"]
        return text

    def _dumped(self, chunk: object) -> bytes:
        separators = None if self.spaced else (",", ":")
        return b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=self.ascii, separators=separators).encode()

    def _choice(self, at: int | None, finish: str | None) -> dict[str, object]:
        """``None``: no token."""
        said = "" if at is None else token(at)
        if self.completions:
            return {"index": 0, "text": said, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        delta = {} if at is None else {"content": said}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _vllm(self, asked: dict[str, object], begin: int, last: int) -> list[bytes]:
        head = {
            "id": f"cmpl-{self.served}",
            "object": "text_completion" if self.completions else "chat.completion.chunk",
            "created": 1000 + self.served,
            "model": asked["model"],
        }
        options = asked.get("stream_options")
        assert options == {"include_usage": True, "continuous_usage_stats": True}

        def usage(at: int) -> dict[str, object]:
            prompt = PROMPT_TOKENS + begin
            return {"prompt_tokens": prompt, "total_tokens": prompt + at - begin, "completion_tokens": at - begin}

        out = []
        if not self.completions:
            first = {
                "index": 0,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            out.append(self._dumped({**head, "choices": [first], "usage": usage(begin)}))
        for at in range(begin, last):
            finish = None if at + 1 < last else "stop" if last == self.tokens else "length"
            out.append(self._dumped({**head, "choices": [self._choice(at, finish)], "usage": usage(at + 1)}))
        out.append(self._dumped({**head, "choices": [], "usage": usage(last)}))
        return [*out, b"data: [DONE]\n\n"]

    def _llamacpp(self, asked: dict[str, object], begin: int, last: int) -> list[bytes]:
        assert asked["timings_per_token"] is True

        def chunk(choices: list[object], at: int, **more: object) -> bytes:
            tail = {"created": 1000 + 100 * self.served + at, "id": f"chatcmpl-{self.served}", "model": "gguf"}
            timings = {"cache_n": 4, "prompt_n": PROMPT_TOKENS + begin - 4, "predicted_n": at - begin}
            known = {"system_fingerprint": "b1", "object": "chat.completion.chunk"}
            return self._dumped({"choices": choices, **tail, **known, **more, "timings": timings})

        def choice(delta: object, finish: str | None = None) -> dict[str, object]:
            return {"finish_reason": finish, "index": 0, "delta": delta}

        out = [chunk([choice({"role": "assistant", "content": None})], begin)]
        out += [chunk([choice({"content": token(at)})], at + 1) for at in range(begin, last)]
        out.append(chunk([choice({}, "stop" if last == self.tokens else "length")], last))
        usage = {
            "completion_tokens": last - begin,
            "prompt_tokens": PROMPT_TOKENS + begin,
            "total_tokens": PROMPT_TOKENS + last,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        out.append(chunk([], last, usage=usage))
        return [*out, b"data: [DONE]\n\n"]
