"""How much text a request holds for the model, and what in it forbids to go on with the answer elsewhere."""

from typing import Final

from gateway.core.endpoints import Endpoint

_TOKEN: Final = 4  # characters; a prompt may be sent as token numbers
_DEEPEST: Final = 4  # messages hold parts, parts hold results, results hold parts

_SOURCES: Final = ("system", "instructions", "messages", "prompt", "input")

CONTINUED: Final = frozenset({"chat", "completions"})
"""The scopes whose answers are plain text in one place, so that another worker can be given a part of them."""

_FORBIDDEN: Final = (
    "tools",
    "functions",
    "structured_outputs",
    "grammar",
    "json_schema",
    "top_logprobs",
    "prompt_logprobs",
    "n_probs",
    "echo",
    "suffix",
    "use_beam_search",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "truncate_prompt_tokens",
    "kv_transfer_params",
    "audio",
)


def characters(fields: dict[str, object], otherwise: int) -> int:
    """Characters of text in the prompt; ``otherwise`` when there is no field that is known to hold one."""
    sources = [fields[name] for name in _SOURCES if name in fields]
    return sum(_length(one, _DEEPEST) for one in sources) if sources else otherwise


def refusal(fields: dict[str, object], endpoint: Endpoint, *, stream: bool) -> str:
    """Why an answer to this must not be continued by another worker; empty: it may."""
    if endpoint.scope not in CONTINUED:
        return "not an endpoint whose answers can be continued"
    if not stream:
        return "not streamed"
    for name in _FORBIDDEN:
        if fields.get(name):
            return name
    for name in fields:
        if name.startswith("guided_") and fields[name] is not None:
            return name
    for name in ("n", "best_of"):
        value = fields.get(name)
        if isinstance(value, int | float) and value > 1:
            return f"{name} above 1"
    most = fields.get("n_predict")
    if isinstance(most, int) and most > 0:  # llama.cpp's own; others would not heed it
        return "n_predict"
    if fields.get("logprobs") is not None and fields["logprobs"] is not False:  # in completions, 0 asks for them
        return "logprobs"
    wanted = fields.get("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        return "response_format"
    if endpoint.scope == "completions" and plain_prompt(fields.get("prompt")) is None:
        return "a prompt that is not one text"
    return ""


def plain_prompt(prompt: object) -> str | None:
    """The prompt, if it is one text, perhaps in a list."""
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return prompt if isinstance(prompt, str) else None


def _length(value: object, depth: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list) and depth:
        if value and type(value[0]) is int:
            return _TOKEN * len(value)
        return sum([_length(one, depth - 1) for one in value])
    if isinstance(value, dict):
        return sum([_length(value[name], depth) for name in ("text", "content") if name in value]) if depth else 0
    return 0
