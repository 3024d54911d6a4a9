"""The simulator's /v1/responses (OpenAI's newer shape) and /v1/messages (Anthropic's), whole and as events."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from node_agent.engines.simulator_answer import Answer, Wish, as_json, recited, spoken
from node_agent.engines.simulator_call import Call, Refused, dump, integer, stops
from node_agent.engines.simulator_openai import quoted
from node_agent.engines.simulator_prompt import conversation, responses_messages
from node_agent.engines.simulator_scheduler import Job
from node_agent.engines.simulator_text import voice


def _named(kind: str, value: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {dump({'type': kind, **value})}\n\n"


def _octets(events: list[str]) -> bytes:
    return "".join(events).encode("utf-8", "surrogatepass")


def responses(call: Call) -> None:
    """POST /v1/responses. Nothing is stored."""
    if call.body.get("previous_response_id"):
        raise Refused(
            f"Response with id {call.body['previous_response_id']!r} not found.",
            status=404,
            param="previous_response_id",
        )
    instructions = call.get("instructions", str, "")
    talk = conversation(responses_messages(call.need("input"), instructions))
    asked = integer(call.body.get("max_output_tokens"), "max_output_tokens")
    wish = Wish(budget=call.budget(len(talk.tokens), asked), length=call.sim.options.tokens)
    speaker = voice(call.sim.options.seed, talk.parts)
    wanted = call.get("text", dict, {}).get("format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if isinstance(wanted, Mapping) and kind in ("json_object", "json_schema"):
        answer = recited(as_json(wanted.get("schema"), speaker), "", wish)
    else:
        answer = spoken(speaker, "", wish)
    _Responses(call, answer).run(talk.tokens)


@dataclass(slots=True)
class _Responses:
    call: Call
    answer: Answer
    sequence: int = field(init=False, default=0)
    delta: str = field(init=False, default="")

    def run(self, prompt: list[str]) -> None:
        if not self.call.get("stream", bool, False):
            self.call.run(prompt, [self.answer], done=lambda job: self.call.json(self.response(job)))
            return
        self.call.reply.begin()
        opening = self.named("response.created", response=self.response(None))
        opening += self.named("response.in_progress", response=self.response(None))
        self.call.reply.send(opening.encode("utf-8", "surrogatepass"))
        self.call.run(prompt, [self.answer], say=self.say, done=self.done)

    def named(self, kind: str, **value: Any) -> str:
        self.sequence += 1
        return _named(kind, {**value, "sequence_number": self.sequence - 1})

    @property
    def item(self) -> str:
        return f"msg_{self.call.id.removeprefix('resp_')}"

    def response(self, job: Job | None) -> dict[str, Any]:
        call, answer = self.call, self.answer
        status = "in_progress" if job is None else "completed" if answer.reason == "stop" else "incomplete"
        counts = None
        if job is not None:
            drawn = len(answer.tokens)
            counts = {"input_tokens": len(job.prompt), "input_tokens_details": {"cached_tokens": job.cached},
                      "output_tokens": drawn, "output_tokens_details": {"reasoning_tokens": 0},
                      "total_tokens": len(job.prompt) + drawn}  # fmt: skip
        why = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": call.id, "object": "response", "created_at": call.created, "status": status, "model": call.model,
            "error": None, "incomplete_details": why,
            "instructions": call.body.get("instructions"), "metadata": call.body.get("metadata") or {},
            "max_output_tokens": call.body.get("max_output_tokens"), "previous_response_id": None,
            "output": [] if job is None else [self.message("completed", [self.part(answer.text)])],
            "parallel_tool_calls": True, "store": False, "temperature": call.body.get("temperature", 1.0),
            "tool_choice": call.body.get("tool_choice", "auto"), "tools": call.body.get("tools") or [],
            "top_p": call.body.get("top_p", 1.0), "text": call.body.get("text"), "truncation": "disabled",
            "usage": counts,
        }  # fmt: skip

    def message(self, status: str, content: list[Any]) -> dict[str, Any]:
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": content}

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def opening(self) -> list[str]:
        where: dict[str, Any] = {"item_id": self.item, "output_index": 0, "content_index": 0}
        self.delta = (
            f'event: response.output_text.delta\ndata: {{"type":"response.output_text.delta",'
            f'{dump(where)[1:-1]},"logprobs":[],"delta":'
        )
        return [
            self.named("response.output_item.added", output_index=0, item=self.message("in_progress", [])),
            self.named("response.content_part.added", **where, part=self.part("")),
        ]

    def say(self, first: int, last: int) -> None:
        events = [] if first else self.opening()
        for token in self.answer.tokens[first:last]:
            events.append(f'{self.delta}{quoted(token)},"sequence_number":{self.sequence}}}\n\n')
            self.sequence += 1
        self.call.reply.send(_octets(events))

    def done(self, job: Job) -> None:
        events = [] if job.steps else self.opening()
        where: dict[str, Any] = {"item_id": self.item, "output_index": 0, "content_index": 0}
        part = self.part(self.answer.text)
        response = self.response(job)
        events += [
            self.named("response.output_text.done", **where, text=self.answer.text, logprobs=[]),
            self.named("response.content_part.done", **where, part=part),
            self.named("response.output_item.done", output_index=0, item=self.message("completed", [part])),
            self.named("response.completed", response=response),  # as vLLM, even where its budget ended it
        ]
        self.call.reply.send(_octets(events))
        self.call.reply.end()


def messages(call: Call) -> None:
    """POST /v1/messages. A last message of the assistant's is an answer begun, which goes on."""
    given = call.need("messages")
    system = call.body.get("system")
    if isinstance(given, list) and system:
        given = [{"role": "system", "content": system}, *given]
    tools = call.get("tools", list, [])
    talk = conversation(given, preface=[dump(tool) for tool in tools], resume=_ends_with_an_answer(given))
    asked = integer(call.need("max_tokens"), "max_tokens")
    wish = Wish(
        budget=call.budget(len(talk.tokens), asked),
        length=call.sim.options.tokens,
        stops=stops(call, "stop_sequences"),
    )
    speaker = voice(call.sim.options.seed, talk.parts)
    tool = _tool(tools, call.get("tool_choice", dict, {}))
    if tool is not None:
        answer = recited(as_json(tool.get("input_schema") or {"type": "object"}, speaker), "", wish)
        _Messages(call, answer, str(tool.get("name"))).run(talk.tokens)
    else:
        _Messages(call, spoken(speaker, talk.begun, wish)).run(talk.tokens)


def _ends_with_an_answer(given: object) -> bool:
    if not isinstance(given, list) or not given or not isinstance(given[-1], Mapping):
        return False
    return given[-1].get("role") == "assistant"


def _tool(tools: list[Any], choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
    named = [tool for tool in tools if isinstance(tool, Mapping) and isinstance(tool.get("name"), str)]
    match choice.get("type"):
        case "any" if named:
            return named[0]
        case "tool":
            for tool in named:
                if tool["name"] == choice.get("name"):
                    return tool
            raise Refused("tool_choice: no such tool in tools", param="tool_choice")
    return None


@dataclass(slots=True)
class _Messages:
    call: Call
    answer: Answer
    tool: str = ""
    job: Job | None = field(init=False, default=None)
    size: int = field(init=False, default=0)

    def run(self, prompt: list[str]) -> None:
        self.size = len(prompt)
        if not self.call.get("stream", bool, False):
            self.call.run(prompt, [self.answer], done=self.whole)
            return
        self.call.reply.begin()
        self.call.run(prompt, [self.answer], say=self.say, done=self.done)

    @property
    def reason(self) -> str:
        if self.answer.reason == "length":
            return "max_tokens"
        if self.answer.stopped_by is not None:
            return "stop_sequence"
        return "tool_use" if self.tool else "end_turn"

    def message(self, content: list[Any], counts: Mapping[str, int], reason: str | None) -> dict[str, Any]:
        call = self.call
        return {"id": call.id, "type": "message", "role": "assistant", "content": content, "model": call.model,
                "stop_reason": reason, "stop_sequence": self.answer.stopped_by if reason else None,
                "usage": counts}  # fmt: skip

    def block(self, text: str) -> dict[str, Any]:
        if not self.tool:
            return {"type": "text", "text": text}
        return {"type": "tool_use", "id": f"toolu_{self.call.id}", "name": self.tool, "input": _parsed(text)}

    def whole(self, job: Job) -> None:
        counts = {"input_tokens": len(job.prompt), "output_tokens": len(self.answer.tokens),
                  "cache_read_input_tokens": job.cached}  # fmt: skip
        self.call.json(self.message([self.block(self.answer.text)], counts, self.reason))

    def opening(self) -> list[str]:
        counts = {"input_tokens": self.size, "output_tokens": 0}
        return [
            _named("message_start", {"message": self.message([], counts, None)}),
            _named("content_block_start", {"index": 0, "content_block": self.block("")}),
        ]

    def say(self, first: int, last: int) -> None:
        kind, name = ("input_json_delta", "partial_json") if self.tool else ("text_delta", "text")
        head = (
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            f'"delta":{{"type":"{kind}","{name}":'
        )
        events = [] if first else self.opening()
        events += [f"{head}{quoted(token)}}}}}\n\n" for token in self.answer.tokens[first:last]]
        self.call.reply.send(_octets(events))

    def done(self, job: Job) -> None:
        counts = {"input_tokens": len(job.prompt), "output_tokens": len(self.answer.tokens)}
        delta = {"stop_reason": self.reason, "stop_sequence": self.answer.stopped_by}
        events = [] if job.steps else self.opening()
        events += [
            _named("content_block_stop", {"index": 0}),
            _named("message_delta", {"delta": delta, "usage": counts}),
            _named("message_stop", {}),
        ]
        self.call.reply.send(_octets(events))
        self.call.reply.end()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # cut by its budget, or nothing of it yet
        return {}
