"""What tokens cost, before (at worst) and after (exactly). Whole nano-units of the currency, rounded up."""

from gateway.core.snapshot import Price

_PER = 1_000_000  # prices are for a million tokens
CHARS_PER_TOKEN = 3  # English has about four, code fewer; what an estimate misses is put right when it is settled


def cost(price: Price, prompt: int, cached: int, completion: int) -> int:
    """What a request costs. ``prompt`` includes ``cached``; of more cached tokens than prompt, only the prompt."""
    cached = min(cached, prompt)
    return _up((prompt - cached) * price.prompt + cached * price.cached + completion * price.completion)


def worst_case(price: Price, prompt: int, completion: int) -> int:
    """What a request of that size costs at most, however much of its prompt is cached."""
    return _up(prompt * max(price.prompt, price.cached) + completion * price.completion)


def estimate_tokens(chars: int) -> int:
    """Tokens of a prompt of so many characters, rather too many for most texts; at least one.

    Scripts with about a token for each character are estimated too low; the engine's own count replaces it.
    """
    return max(1, -(-chars // CHARS_PER_TOKEN))


def _up(millionths: int) -> int:
    return -(-millionths // _PER)
