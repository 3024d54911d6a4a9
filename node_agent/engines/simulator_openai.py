"""The simulator's /v1/chat/completions and /v1/completions, whole and as events, shaped as vLLM's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from node_agent.engines.simulator_answer import Answer, Wish, as_json, recited, spoken
from node_agent.engines.simulator_call import FINGERPRINT, Call, Refused, dump, integer, stops, usage
from node_agent.engines.simulator_prompt import conversation, prompts
from node_agent.engines.simulator_scheduler import Job
from node_agent.engines.simulator_text import voice, voice_of_prompt

DONE = b"data: [DONE]\n\n"


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """As a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def chat(call: Call) -> None:
    """POST /v1/chat/completions."""
    resume = call.get("continue_final_message", bool, False)
    begin = call.get("add_generation_prompt", bool, True)
    if resume and begin:
        raise Refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    tools = call.get("tools", list, [])
    talk = conversation(call.need("messages"), preface=[dump(tool) for tool in tools], begin=begin, resume=resume)
    asked = call.body.get("max_completion_tokens")
    asked = integer(call.body.get("max_tokens") if asked is None else asked, "max_tokens")
    wish = _wish(call, call.budget(len(talk.tokens), asked))
    tool = tool_wanted(tools, call.body.get("tool_choice"))
    answers = []
    for choice in range(_choices(call)):
        speaker = voice(call.sim.options.seed, talk.parts, choice=choice)
        if tool is not None:
            answers.append(recited(as_json(tool.get("parameters") or {"type": "object"}, speaker), "", wish))
        elif (schema := _schema(call.body.get("response_format"))) is not None:
            answers.append(recited(as_json(schema, speaker), talk.begun, wish))
        else:
            answers.append(spoken(speaker, talk.begun, wish))
    shape = _Chat(call, answers, tool["name"]) if tool is not None else _Chat(call, answers)
    shape.run(talk.tokens)


def completions(call: Call) -> None:
    """POST /v1/completions."""
    texts = prompts(call.need("prompt"))
    asked = integer(call.body.get("max_tokens", 16), "max_tokens")
    longest = max(len(text.split()) for text in texts)
    wish = _wish(call, call.budget(longest, asked))
    answers, echo = [], call.get("echo", bool, False)
    for text in texts:
        for choice in range(_choices(call)):
            speaker, begun = voice_of_prompt(call.sim.options.seed, text, choice=choice)
            answer = spoken(speaker, begun, wish)
            answers.append(Answer([text, *answer.tokens], answer.reason, answer.stopped_by) if echo else answer)
    _Completion(call, answers).run([word for text in texts for word in text.split()])


def _wish(call: Call, budget: int) -> Wish:
    endless = call.get("ignore_eos", bool, False)
    return Wish(
        budget=budget if not endless or budget < 1 << 20 else 1 << 10,
        length=call.sim.options.tokens,
        to_the_budget=endless,
        least=min(budget, call.get("min_tokens", int, 0)),
        stops=stops(call),
        with_stop=call.get("include_stop_str_in_output", bool, False),
    )


def _choices(call: Call) -> int:
    number = call.get("n", int, 1)
    if not 1 <= number <= 128:
        raise Refused(f"n must be between 1 and 128, got {number}.", param="n")
    return number


def _schema(wanted: object) -> Mapping[str, Any] | None:
    """The schema of a JSON answer; empty for any JSON; None for words."""
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    if isinstance(wanted, Mapping) and kind == "json_schema" and isinstance(wanted.get("json_schema"), Mapping):
        schema: object = wanted["json_schema"].get("schema")
        return schema if isinstance(schema, Mapping) else {}
    raise Refused("response_format: type should be text, json_object or json_schema", param="response_format")


def tool_wanted(tools: Sequence[Any], wanted: object) -> Mapping[str, Any] | None:
    """The function to call: only when the request insists on one."""
    functions: list[Mapping[str, Any]] = [
        function
        for tool in tools
        if isinstance(tool, Mapping) and isinstance(function := tool.get("function"), Mapping)
        if isinstance(function.get("name"), str)
    ]
    if wanted in (None, "none", "auto"):
        return None
    if wanted == "required" and functions:
        return functions[0]
    if isinstance(wanted, Mapping) and isinstance(wanted.get("function"), Mapping):
        name = wanted["function"].get("name")
        for function in functions:
            if function["name"] == name:
                return function
    raise Refused("tool_choice: no such tool in tools", param="tool_choice")


@dataclass(slots=True)
class _Shape:
    """One answer in the making. Subclasses say how its pieces look."""

    call: Call
    answers: list[Answer]
    tool: str = ""
    job: Job | None = field(init=False, default=None)
    continuous: bool = field(init=False, default=False)
    prompt: int = field(init=False, default=0)
    heads: list[str] = field(init=False, default_factory=list)

    def run(self, prompt: list[str]) -> None:
        call = self.call
        self.prompt = len(prompt)
        if not call.get("stream", bool, False):
            call.run(prompt, self.answers, done=self.whole)
            return
        wanted = call.get("stream_options", dict, {})
        self.continuous = bool(wanted.get("continuous_usage_stats"))
        include = bool(wanted.get("include_usage"))
        call.reply.begin()
        call.run(prompt, self.answers, say=self.say, done=lambda job: self.done(job, include))

    def say(self, first: int, last: int) -> None:
        events = [] if first else self.opening()
        for step in range(first, last):
            for index, answer in enumerate(self.answers):
                if step < len(answer.tokens):
                    events.append(self.event(index, answer, step))
        self.call.reply.send("".join(events).encode("utf-8", "surrogatepass"))

    def done(self, job: Job, include: bool) -> None:
        events = [] if job.steps else self.opening()
        for index, answer in enumerate(self.answers):
            if answer.reason == "stop" or not answer.tokens:
                events.append(self.ending(index, answer))
        if include:
            counts = usage(job, sum(len(answer.tokens) for answer in self.answers))
            events.append(f"data: {dump({**self.frame(), 'choices': [], 'usage': counts})}\n\n")
        self.call.reply.send("".join(events).encode("utf-8", "surrogatepass") + DONE)
        self.call.reply.end()

    def counts(self, drawn: int) -> str:
        if not self.continuous:
            return ""
        return (
            f',"usage":{{"prompt_tokens":{self.prompt},"total_tokens":{self.prompt + drawn},'
            f'"completion_tokens":{drawn}}}'
        )

    def frame(self) -> dict[str, Any]:
        raise NotImplementedError

    def opening(self) -> list[str]:
        raise NotImplementedError

    def event(self, index: int, answer: Answer, step: int) -> str:
        raise NotImplementedError

    def ending(self, index: int, answer: Answer) -> str:
        raise NotImplementedError

    def whole(self, job: Job) -> None:
        raise NotImplementedError


def _probabilities(tokens: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "token": token,
            "logprob": -0.5,
            "bytes": list(token.encode("utf-8", "surrogatepass")),
            "top_logprobs": [],
        }
        for token in tokens
    ]


class _Chat(_Shape):
    __slots__ = ()

    def frame(self) -> dict[str, Any]:
        call = self.call
        return {"id": call.id, "object": "chat.completion.chunk", "created": call.created, "model": call.model,
                "system_fingerprint": FINGERPRINT}  # fmt: skip

    def opening(self) -> list[str]:
        frame = dump(self.frame())[:-1]
        self.heads = [f'data: {frame},"choices":[{{"index":{index},"delta":' for index in range(len(self.answers))]
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        opened = []
        for index, head in enumerate(self.heads):
            if self.tool:
                function = {"name": self.tool, "arguments": ""}
                tool = {"id": f"{self.call.id}-tool-{index}", "type": "function", "index": 0, "function": function}
                delta = {"role": "assistant", "content": None, "tool_calls": [tool]}
            opened.append(f'{head}{dump(delta)},"logprobs":null,"finish_reason":null}}]{self.counts(0)}}}\n\n')
        return opened

    def event(self, index: int, answer: Answer, step: int) -> str:
        token = answer.tokens[step]
        if self.tool:
            delta = f'{{"tool_calls":[{{"index":0,"function":{{"arguments":{quoted(token)}}}}}]}}'
        else:
            delta = f'{{"content":{quoted(token)}}}'
        odds = dump({"content": _probabilities([token])}) if self.call.body.get("logprobs") else "null"
        last = step == len(answer.tokens) - 1 and answer.reason != "stop"
        end = f'{quoted(answer.reason)},"stop_reason":null' if last else "null"
        return (
            f'{self.heads[index]}{delta},"logprobs":{odds},"finish_reason":{end}}}]{self.counts(step + 1)}}}\n\n'
        )

    def ending(self, index: int, answer: Answer) -> str:
        reason = "tool_calls" if self.tool and answer.reason == "stop" else answer.reason
        stopped = json.dumps(answer.stopped_by, ensure_ascii=False)
        return (
            f'{self.heads[index]}{{"content":""}},"logprobs":null,"finish_reason":"{reason}","stop_reason":{stopped}}}]'
            f"{self.counts(len(answer.tokens))}}}\n\n"
        )

    def whole(self, job: Job) -> None:
        choices = []
        for index, answer in enumerate(self.answers):
            message: dict[str, Any] = {
                "role": "assistant",
                "content": answer.text,
                "refusal": None,
                "tool_calls": [],
            }
            reason = answer.reason
            if self.tool:
                message["content"] = None
                message["tool_calls"] = [
                    {"id": f"{self.call.id}-tool-{index}", "type": "function",
                     "function": {"name": self.tool, "arguments": answer.text}}]  # fmt: skip
                reason = "tool_calls" if reason == "stop" else reason
            odds = {"content": _probabilities(answer.tokens)} if self.call.body.get("logprobs") else None
            choices.append({"index": index, "message": message, "logprobs": odds, "finish_reason": reason,
                            "stop_reason": answer.stopped_by})  # fmt: skip
        counts = usage(job, sum(len(answer.tokens) for answer in self.answers))
        self.call.json({**self.frame(), "object": "chat.completion", "choices": choices, "usage": counts})


class _Completion(_Shape):
    __slots__ = ()

    def frame(self) -> dict[str, Any]:
        call = self.call
        return {"id": call.id, "object": "text_completion", "created": call.created, "model": call.model,
                "system_fingerprint": FINGERPRINT}  # fmt: skip

    def opening(self) -> list[str]:
        frame = dump(self.frame())[:-1]
        self.heads = [f'data: {frame},"choices":[{{"index":{index},"text":' for index in range(len(self.answers))]
        return []

    def event(self, index: int, answer: Answer, step: int) -> str:
        last = step == len(answer.tokens) - 1 and answer.reason != "stop"
        end = quoted(answer.reason) if last else "null"
        odds = dump(self._odds(answer.tokens[step : step + 1])) if self._wanted else "null"
        return (
            f'{self.heads[index]}{quoted(answer.tokens[step])},"logprobs":{odds},"finish_reason":{end},'
            f'"stop_reason":null}}]{self.counts(step + 1)}}}\n\n'
        )

    def ending(self, index: int, answer: Answer) -> str:
        stopped = json.dumps(answer.stopped_by, ensure_ascii=False)
        return (
            f'{self.heads[index]}"","logprobs":null,"finish_reason":"{answer.reason}","stop_reason":{stopped}}}]'
            f"{self.counts(len(answer.tokens))}}}\n\n"
        )

    @property
    def _wanted(self) -> bool:
        return self.call.body.get("logprobs") not in (None, False)

    def _odds(self, tokens: Sequence[str]) -> dict[str, Any]:
        return {"text_offset": [sum(map(len, tokens[:number])) for number in range(len(tokens))],
                "token_logprobs": [-0.5] * len(tokens), "tokens": list(tokens),
                "top_logprobs": [None] * len(tokens)}  # fmt: skip

    def whole(self, job: Job) -> None:
        choices = [
            {"index": index, "text": answer.text, "logprobs": self._odds(answer.tokens) if self._wanted else None,
             "finish_reason": answer.reason, "stop_reason": answer.stopped_by, "prompt_logprobs": None}
            for index, answer in enumerate(self.answers)
        ]  # fmt: skip
        counts = usage(job, sum(len(answer.tokens) for answer in self.answers))
        self.call.json({**self.frame(), "choices": choices, "usage": counts})
