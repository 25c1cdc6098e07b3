"""What a server says it used, or an upper bound if that is missing or cannot be true. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tts_plugins._internal.config import check_price
from tts_plugins._internal.values import field, is_whole
from tts_plugins.types import Usage

# Texts of real tokenisers run at about 3 to 6 bytes a token; beyond this, tokens were left out of the count.
_BYTES_A_TOKEN, _BYTES_OF_ONE = 7.0, 16.0


Price = Callable[[int, int], float | None]


class Trust:
    """What is known of a server: whether it counts all choices of a request, and whether it keeps `max_tokens`.

    A count of all choices and a count of the first alone cannot be distinguished as long as one choice could have so
    many. A larger count proves from then on that the server counts all; until then such a request is charged at its
    bound.

    Args:
        proven: it is known to count all.
    """

    def __init__(self, *, proven: bool = False) -> None:
        self.proven = proven
        self.asked = False  # whether its tokeniser, if it has one, has been asked
        self._longest = 0

    def limit(self, max_tokens: int | None) -> int | None:
        """Return the tokens that a choice may have: `max_tokens`, or the most that a choice had past its limit."""
        return None if max_tokens is None else max(max_tokens, self._longest)

    def went_past(self, tokens: int) -> None:
        """Note that a choice had so many tokens, more than it was allowed."""
        self._longest = max(self._longest, tokens)

    def saw(self, claimed: int, most: int) -> None:
        """Note that the server reported this count for choices that have at most `most` tokens each."""
        self.proven = self.proven or claimed > most

    def saw_counts(self, claimed: int, counts: Sequence[int]) -> None:
        """Note that the server reported this count for choices that its own tokeniser counts like this, one by one."""
        # A text may have been generated from other tokens than the tokeniser now finds, plus an end token.
        if 0.8 * sum(counts) <= claimed <= 1.2 * sum(counts) + 4 * len(counts):
            self.saw(claimed, int(1.2 * max(counts)) + 4)


def measure(
    reported: Any,
    texts: Sequence[str],
    truncated: Sequence[bool],
    *,
    prompt_bound: int,
    max_tokens: int | None,
    hidden: bool,
    price: Price | None,
    trust: Trust | None = None,
) -> Usage:
    """Return the usage of one request: as reported, or bounded if the report is missing or plainly wrong.

    Args:
        reported: the server's usage object, whatever it is.
        texts: what each choice says, its reasoning and tool calls included.
        truncated: which of them were cut by `max_tokens`.
        hidden: the choices may hold tokens that are not shown, so that texts bound nothing.
        price: dollars for prompt and completion tokens; None if unknown.
        trust: what is known of the server's counts for several choices; it learns from this one.
    """
    prompt, trust = _count(reported, "prompt_tokens"), trust or Trust()
    kept = kept_limit(reported, texts, max_tokens, trust)
    claimed = completion = completion_count(reported, texts, truncated, max_tokens, hidden)
    if claimed is not None and len(texts) > 1 and not field(reported, "every_choice"):
        trust.saw(claimed, most_of_one(claimed, reported, texts, kept))
        completion = claimed if trust.proven else None
    exact = prompt is not None and completion is not None and not field(reported, "upper_bound")
    if prompt is None:
        prompt = prompt_bound
    if completion is None:
        sizes = [
            _bound(t, cut or hidden, kept, trust.limit(max_tokens)) for t, cut in zip(texts, truncated, strict=True)
        ]
        completion = _bound_of_all(texts, sizes, kept, claimed or 0)
    _learn(trust, _count(reported, "completion_tokens"), completion, len(texts), max_tokens)
    return Usage(
        calls=len(texts),
        requests=1,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(_cached(reported), prompt) if exact else 0,
        usd=None if price is None else price(prompt, completion),
        exact=exact,
    )


def _learn(trust: Trust, said: int | None, charged: int, choices: int, max_tokens: int | None) -> None:
    """Remember a choice's tokens past its limit, unless the server says that it kept it: it may repeat a prompt."""
    if max_tokens is not None and charged > max_tokens * choices and (said is None or said > max_tokens * choices):
        trust.went_past(math.ceil(charged / choices))


def completion_count(
    reported: Any, texts: Sequence[str], truncated: Sequence[bool], max_tokens: int | None, hidden: bool = False
) -> int | None:
    """Return the completion tokens as reported; None if they are missing or cannot be true."""
    claimed = _count(reported, "completion_tokens")
    if claimed is None or not _plausible(claimed, texts, truncated, max_tokens):
        return None
    # Not every server keeps `max_tokens`. Past it, the texts must be long enough for so many, or not be all there is.
    within = max_tokens is None or claimed <= max_tokens * len(texts)
    return claimed if within or hidden or claimed <= sum(map(_size, texts)) + _thought(reported) else None


def kept_limit(reported: Any, texts: Sequence[str], max_tokens: int | None, trust: Trust) -> int | None:
    """Return `max_tokens` as long as nothing shows that the server exceeds it, now or earlier; else None."""
    if max_tokens is None or trust.limit(max_tokens) != max_tokens:
        return None
    claimed, sizes = _count(reported, "completion_tokens") or 0, [_size(t) for t in texts]
    past = claimed > max_tokens * len(texts) or max(sizes) - 2 > _BYTES_OF_ONE * max_tokens
    # If it is too small for all texts, it is the count of one.
    return None if past or max_tokens < claimed < sum(sizes) / _BYTES_A_TOKEN else max_tokens


def most_of_one(claimed: int, reported: Any, texts: Sequence[str], kept: int | None) -> int:
    """Return the most tokens that one choice alone can have; `claimed` if that is not known.

    Args:
        kept: the limit of each choice, if the server keeps it.
    """
    sizes = [_size(t) + _thought(reported) for t in texts]
    # More than all texts can have: there are hidden tokens, and any choice may have most of them.
    shown = claimed if claimed > sum(sizes) else max(sizes)
    return shown if kept is None else min(shown, kept)


def _thought(reported: Any) -> int:
    return _count(field(reported, "completion_tokens_details"), "reasoning_tokens") or 0


def _bound_of_all(texts: Sequence[str], sizes: Sequence[int], kept: int | None, claimed: int) -> int:
    if claimed <= sum(_size(t) for t in texts):
        return sum(sizes)
    # One choice has more tokens than all texts show, so each choice may have that many.
    return max(sum(sizes), len(texts) * (claimed if kept is None else kept))


def _cached(reported: Any) -> int:
    return _count(field(reported, "prompt_tokens_details"), "cached_tokens") or 0


def _count(reported: Any, name: str) -> int | None:
    value = field(reported, name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not is_whole(value) or not 0 <= value < 10**9:
        return None
    return value if value > 0 or name == "completion_tokens" else None


def _plausible(tokens: int, texts: Sequence[str], truncated: Sequence[bool], max_tokens: int | None) -> bool:
    size = sum(len(t.encode("utf-8", "replace")) for t in texts)
    if max_tokens is not None and tokens < max_tokens * sum(truncated):
        return False  # some were cut at the limit, so they alone have more
    if size == 0:
        return True
    # Some servers count the first choice only. Few tokens may represent a long text once, but not a whole batch.
    return tokens > 0 and (size / tokens <= _BYTES_A_TOKEN or (len(texts) == 1 and size / tokens <= _BYTES_OF_ONE))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace")) + 2  # the end of turn is a token too


def _bound(text: str, unseen: bool, kept: int | None, limit: int | None) -> int:
    """Return tokens of one choice at most; `unseen`: it may hold more than is shown."""
    size = _size(text)
    if kept is not None:
        return kept if unseen else min(size, kept)
    return max(size, limit or 0) if unseen else size


def pricing(
    price: tuple[float, float] | None, model: str, base_url: str | None, *, provider: str = "openai"
) -> Price | None:
    """Return a function from prompt and completion tokens to dollars: by the given price, else the published one.

    Args:
        provider: as the table of prices calls it, if no `base_url` tells which it is.

    Returns:
        None if no price is known: `genai-prices` is not installed, or does not list the model at that server.

    Raises:
        ConfigurationError: the price is not two prices of at least 0.
    """
    if price is not None:
        check_price(model, price)
        into, out = price
        return lambda prompt, completion: (prompt * into + completion * out) / 1e6
    try:
        from genai_prices import Usage as Tokens
        from genai_prices import calc_price
    except ImportError:
        return None

    def published(prompt: int, completion: int) -> float | None:
        tokens = Tokens(input_tokens=prompt, output_tokens=completion)
        try:
            if base_url is None:
                found = calc_price(tokens, model, provider_id=provider)
            else:
                found = calc_price(tokens, model, provider_api_url=base_url)
        except LookupError:
            return None
        return float(found.total_price)

    return published if published(1, 1) is not None else None


def without(prefix: str, text: str) -> str:
    """Return the text without the prefix that llama.cpp repeats at its head; templates may trim the prefix's end."""
    for given in (prefix, prefix.rstrip()):
        if given and text.startswith(given):
            return text[len(given) :]
    return text
