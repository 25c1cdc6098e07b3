"""Limits, and the amounts that are held against them. The account itself is `tts_plugins.ledger`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Usage

Dimension = Literal["calls", "tokens", "picousd"]
DIMENSIONS: tuple[Dimension, ...] = ("calls", "tokens", "picousd")
PICO = 1_000_000_000_000
_MOST = 1e18  # of each limit, which databases can still hold
_ROUNDING = 1e-15  # relative: what a few operations on floats add


class Amount(NamedTuple):
    """Calls, tokens and money, all whole numbers: sums must come out exactly, and floats do not.

    Money is in 1e-12 US dollars, rounded up; a token of the cheapest models costs about 2e-8.
    """

    calls: int = 0
    tokens: int = 0
    picousd: int = 0

    @classmethod
    def of(cls, *, calls: int = 0, tokens: int = 0, usd: float | None = 0.0) -> Amount:
        """Return an amount with money in dollars; an unknown price holds no money (a `usd` limit refuses it)."""
        return cls(calls, tokens, _pico(usd, _ROUNDING) if usd else 0)

    @classmethod
    def used(cls, usage: Usage) -> Amount:
        """Return what a usage takes from a ledger."""
        # With more allowance than `of`: in floats, the price of n calls may be above n times the price of one.
        return _quick((usage.calls, usage.tokens, _pico(usage.usd, 3 * _ROUNDING) if usage.usd else 0))

    def plus(self, other: Amount) -> Amount:
        """Return the sum."""
        return _quick((self[0] + other[0], self[1] + other[1], self[2] + other[2]))

    def minus(self, other: Amount) -> Amount:
        """Return the difference; components may become negative."""
        return _quick((self[0] - other[0], self[1] - other[1], self[2] - other[2]))

    def times(self, count: int) -> Amount:
        """Return this amount `count` times."""
        return self if count == 1 else _quick((self[0] * count, self[1] * count, self[2] * count))

    def excess(self, other: Amount) -> Amount:
        """Return by how much it exceeds `other`, by component; never negative."""
        calls, tokens, picousd = self[0] - other[0], self[1] - other[1], self[2] - other[2]
        return _quick((calls if calls > 0 else 0, tokens if tokens > 0 else 0, picousd if picousd > 0 else 0))

    @property
    def usd(self) -> float:
        """Its money in dollars."""
        return self.picousd / PICO

    def __str__(self) -> str:
        parts = [f"{self.calls:,} call{'' if self.calls == 1 else 's'}"]
        parts.append(f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}")
        return ", ".join(parts + ([f"${self.usd:.6f}"] if self.picousd else []))


def _pico(usd: float, rounding: float) -> int:
    return math.ceil(usd * PICO * (1 - rounding))


# As the class itself makes it, in half the time: several are made for each request.
_quick: Callable[[tuple[int, int, int]], Amount] = partial(tuple.__new__, Amount)
ZERO = Amount()


class Need(NamedTuple):
    """What a request for several choices takes at most: `each` of them, and `once` for all, such as the prompt."""

    each: Amount
    once: Amount = ZERO

    def times(self, choices: int) -> Amount:
        """Return what `count` choices take together."""
        each, once = self.each.times(choices), self.once
        return each.plus(once) if once != ZERO else each

    def plus(self, after: Amount) -> Need:
        """Return the same, with what follows each choice."""
        return Need(self.each.plus(after), self.once)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Hard limits on one solve; any subset, each of them binding.

    Args:
        calls: generations asked of models, verifiers' included.
        tokens: prompt and completion tokens together.
        usd: US dollars; needs a price for every model that is called.
        seconds: wall time of the solve.

    Raises:
        ConfigurationError: no limit is given, or one is not a positive number.

    A budget is fresh for every solve; a `Ledger` is one account that many solves share.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("calls", "tokens", "usd", "seconds")}
        if all(value is None for value in given.values()):
            raise ConfigurationError(
                "Budget: no limit is given; set at least one of calls, tokens, usd, seconds, or pass budget=None"
            )
        for name, value in given.items():
            if value is None:
                continue
            whole = name in ("calls", "tokens")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigurationError(f"Budget: {name}={value!r} must be {'a whole' if whole else 'a'} number")
            if value >= _MOST:
                shown = repr(value) if isinstance(value, float) else "…"  # Python writes no thousands of digits
                raise ConfigurationError(f"Budget: {name}={shown} must be below {_MOST:g}; leave it out for no limit")
            if not value > 0:
                raise ConfigurationError(f"Budget: {name}={value!r} must be above 0; leave it out for no limit")

    def limit(self, dimension: Dimension) -> int | None:
        """Return the limit on one component of an `Amount`; None if there is none."""
        if dimension == "picousd":
            return None if self.usd is None else math.floor(self.usd * PICO * (1 + _ROUNDING))
        return self.calls if dimension == "calls" else self.tokens

    def to_dict(self) -> dict[str, Any]:
        """Return the limits that are set."""
        given = {name: getattr(self, name) for name in ("calls", "tokens", "usd", "seconds")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The worst that one call can cost; None if there is no bound, or no known price.

    Attributes:
        shared_tokens, shared_usd: of `prompt_tokens` and `usd`, what a request for several choices takes only once.
    """

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    usd: float | None = 0.0
    calls: int = 1
    shared_tokens: int = 0
    shared_usd: float = 0.0

    @property
    def amount(self) -> Amount:
        """What to hold for it; an unbounded part holds nothing, which only an unlimited account may accept."""
        return _amount(self.calls, self.prompt_tokens + (self.completion_tokens or 0), self.usd)

    @property
    def need(self) -> Need:
        """What to hold for a request for several choices."""
        whole = self.amount
        if not self.shared_tokens and not self.shared_usd:
            return Need(whole)
        # Rounded down, since it is left out of each choice but one: the sum must not come out below the price.
        once = Amount(0, self.shared_tokens, math.floor(self.shared_usd * PICO))
        return Need(whole.minus(once), once)

    def usage(self, count: int = 1, *, tokens: bool = True) -> Usage:
        """Return the usage of a request for `count` choices: at its bound, or without tokens if it was refused."""
        if not tokens:
            return Usage(calls=self.calls, requests=1, usd=0.0)
        again = count - 1
        return Usage(
            calls=self.calls * count,
            requests=1,
            prompt_tokens=self.prompt_tokens * count - self.shared_tokens * again,
            completion_tokens=(self.completion_tokens or 0) * count,
            usd=None if self.usd is None else self.usd * count - self.shared_usd * again,
            exact=False,
        )


@lru_cache(maxsize=256)
def _amount(calls: int, tokens: int, usd: float | None) -> Amount:
    """Return the amount: one object for all candidates of a prompt, since thousands may be in flight."""
    return Amount.of(calls=calls, tokens=tokens, usd=usd)


FREE = Bound(calls=0)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The load that a server accepts; None for no limit. A place is held for the time of one request.

    Args:
        concurrency: requests in flight at once.
        requests_per_minute, tokens_per_minute: rates; tokens are taken at their bound.
    """

    concurrency: int | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or value <= 0):
                raise ConfigurationError(f"{name}={value!r} must be a number above 0; leave it out for no limit")
        if self.concurrency is not None and not is_whole(self.concurrency, 1):
            raise ConfigurationError(f"concurrency={self.concurrency!r} must be a whole number of at least 1")
