"""What a server says it used, or an upper bound if that is missing or cannot be true. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tts_plugins._internal.config import check_price
from tts_plugins._internal.values import field, is_whole
from tts_plugins.types import Usage

# Texts of real tokenisers run at about 3 to 6 bytes a token; beyond this, tokens were left out of the count.
_BYTES_A_TOKEN, _BYTES_OF_ONE = 7.0, 16.0
_CACHED = ("cache_read_input_tokens", "cache_creation_input_tokens")


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


class Report(NamedTuple):
    """What a server says that one request used, as far as it can be read; None where it does not say."""

    prompt: int | None
    completion: int | None
    thought: int  # of the completion's tokens, those that are not shown
    cached: int
    every_choice: bool  # it is known to cover all choices
    upper_bound: bool

    @classmethod
    def of(cls, reported: Any) -> Report:
        """Read a server's usage object, whatever it is; return a report as it is."""
        if isinstance(reported, Report):
            return reported
        said = reported.get if type(reported) is dict else functools.partial(field, reported)
        into, out = "prompt_tokens", "completion_tokens"
        if said(into) is None and said(out) is None:
            into, out = "input_tokens", "output_tokens"  # Anthropic's names, and those of OpenAI's responses
        details, read = said(f"{out}_details"), said(f"{into}_details")
        prompt, completion = count_of(said(into), 1), count_of(said(out), 0)
        thought = 0 if details is None else count_of(field(details, "reasoning_tokens"), 1) or 0
        cached = 0 if read is None else count_of(field(read, "cached_tokens"), 1) or 0
        if prompt is not None and completion is not None:
            beside = max(0, (count_of(said("total_tokens"), 1) or 0) - prompt - completion)
            # Anthropic counts what its cache read and wrote beside the prompt, and gateways give that on or add it.
            moved = (count_of(said(_CACHED[0]), 1) or 0) + (count_of(said(_CACHED[1]), 1) or 0)
            if moved and (moved > prompt or moved == beside or into == "input_tokens"):
                prompt, beside = prompt + moved, max(0, beside - moved)
            # xAI and Gemini count thoughts in the total only; more thoughts than tokens are not among them.
            beside = beside or (thought if thought > completion else 0)
            completion, thought = completion + beside, max(thought, beside)
        elif said(out) is None and (total := count_of(said("total_tokens"), 1)) is not None:
            # Gemini leaves it out where all were thoughts.
            completion = total if prompt is None else max(0, total - prompt)
            thought = max(thought, completion)
        return cls(prompt, completion, thought, cached, bool(said("every_choice")), bool(said("upper_bound")))


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
    calls: int | None = None,
    requests: int = 1,
) -> Usage:
    """Return the usage of one request: as reported, or bounded if the report is missing or plainly wrong.

    Args:
        reported: the server's usage object, whatever it is, or what was read from it.
        texts: what each choice says, its reasoning and tool calls included.
        truncated: which of them were cut by `max_tokens`.
        hidden: the choices may hold tokens that are not shown, so that texts bound nothing.
        price: dollars for prompt and completion tokens; None if unknown.
        trust: what is known of the server's counts for several choices; it learns from this one.
        calls: choices that were asked for; those that nobody asked for cost their tokens, but are not calls of ours.
        requests: HTTP attempts.
    """
    report, trust, sizes = Report.of(reported), trust or Trust(), [size_of(text) for text in texts]
    claimed = completion = completion_count(report, sizes, truncated, max_tokens, hidden)
    several = claimed is not None and len(texts) > 1 and not report.every_choice
    # It is not needed for a single choice's count.
    kept = kept_limit(report, sizes, max_tokens, trust) if several or completion is None else None
    if several and claimed is not None:
        trust.saw(claimed, most_of_one(claimed, report, sizes, kept))
        completion = claimed if trust.proven else None
    prompt = prompt_bound if report.prompt is None else report.prompt
    exact = report.prompt is not None and completion is not None and not report.upper_bound
    if completion is None:
        limit = trust.limit(max_tokens)
        bounds = [_bound(n, cut or hidden, kept, limit) for n, cut in zip(sizes, truncated, strict=True)]
        completion = _bound_of_all(sizes, bounds, kept, claimed or 0)
    _learn(trust, report.completion, completion, len(texts), max_tokens)
    return Usage.counted(
        calls=len(texts) if calls is None else min(calls, len(texts)),
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(report.cached, prompt) if exact else 0,
        usd=None if price is None else price(prompt, completion),
        exact=exact,
    )


def _learn(trust: Trust, said: int | None, charged: int, choices: int, max_tokens: int | None) -> None:
    """Remember a choice's tokens past its limit, unless the server says that it kept it: it may repeat a prompt."""
    if max_tokens is not None and charged > max_tokens * choices and (said is None or said > max_tokens * choices):
        trust.went_past(math.ceil(charged / choices))


def completion_count(
    report: Report, sizes: Sequence[int], truncated: Sequence[bool], max_tokens: int | None, hidden: bool = False
) -> int | None:
    """Return the completion tokens as reported; None if they are missing or cannot be true.

    Args:
        sizes: of the choices' texts, see `size_of`.
    """
    claimed = report.completion
    if claimed is None or not _plausible(claimed, sizes, truncated, max_tokens):
        return None
    # Not every server keeps `max_tokens`. Past it, the texts must be long enough for so many, or not be all there is.
    within = max_tokens is None or claimed <= max_tokens * len(sizes)
    return claimed if within or hidden or claimed <= sum(sizes) + report.thought else None


def kept_limit(report: Report, sizes: Sequence[int], max_tokens: int | None, trust: Trust) -> int | None:
    """Return `max_tokens` as long as nothing shows that the server exceeds it, now or earlier; else None."""
    if max_tokens is None or trust.limit(max_tokens) != max_tokens:
        return None
    claimed = report.completion or 0
    past = claimed > max_tokens * len(sizes) or max(sizes) - 2 > _BYTES_OF_ONE * max_tokens
    # If it is too small for all texts, it is the count of one.
    return None if past or max_tokens < claimed < sum(sizes) / _BYTES_A_TOKEN else max_tokens


def most_of_one(claimed: int, report: Report, sizes: Sequence[int], kept: int | None) -> int:
    """Return the most tokens that one choice alone can have; `claimed` if that is not known.

    Args:
        kept: the limit of each choice, if the server keeps it.
    """
    with_thought = [size + report.thought for size in sizes]
    # More than all texts can have: there are hidden tokens, and any choice may have most of them.
    shown = claimed if claimed > sum(with_thought) else max(with_thought)
    return shown if kept is None else min(shown, kept)


def _bound_of_all(sizes: Sequence[int], bounds: Sequence[int], kept: int | None, claimed: int) -> int:
    if claimed <= sum(sizes):
        return sum(bounds)
    # One choice has more tokens than all texts show, so each choice may have that many.
    return max(sum(bounds), len(sizes) * (claimed if kept is None else kept))


def count_of(value: Any, least: int) -> int | None:
    """Return a count of tokens; None where it is not one, or is not plausible."""
    if value is None:
        return None
    if type(value) is not int:
        if (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10) or (
            isinstance(value, float) and value.is_integer()
        ):
            value = int(value)
        if not is_whole(value):
            return None
    return value if least <= value < 10**9 else None


def prompt_count(reported: Any) -> int | None:
    """Return the tokens that a request without completion used; None where that is missing or not plausible."""
    said = field(reported, "prompt_tokens")
    return count_of(field(reported, "total_tokens") if said is None else said, 1)


def _plausible(tokens: int, sizes: Sequence[int], truncated: Sequence[bool], max_tokens: int | None) -> bool:
    length = sum(sizes) - 2 * len(sizes)  # without the ends of turns
    if max_tokens is not None and tokens < max_tokens * sum(truncated):
        return False  # some were cut at the limit, so they alone have more
    if length == 0:
        return True
    # Some servers count the first choice only. Few tokens may represent a long text once, but not a whole batch.
    return tokens > 0 and (length / tokens <= _BYTES_A_TOKEN or (len(sizes) == 1 and length / tokens <= _BYTES_OF_ONE))


def size_of(text: str) -> int:
    """Return the tokens that a choice with this text has at most, none hidden: its bytes, and the end of its turn."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) + 2


def _bound(size: int, unseen: bool, kept: int | None, limit: int | None) -> int:
    """Return tokens of one choice at most; `unseen`: it may hold more than is shown."""
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
