"""What was consumed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._internal.values import is_whole
from tts_plugins.errors import ConfigurationError
from tts_plugins.types._frozen import EMPTY, from_checked

_SUMMED = ("calls", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds", "overshoot")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was consumed.

    Attributes:
        calls: generations asked of a model; a request for 8 choices is 8 calls, a local function 0.
        requests: HTTP attempts, retries included.
        prompt_tokens, completion_tokens: as the server counted them, or a bound where it did not.
        cached_tokens: those of the prompt tokens that the server says it did not have to compute again.
        usd: US dollars; None where a price is not known.
        seconds: summed time of the calls in a part; wall time in a result's total.
        exact: False where some figure is an upper bound instead of a count.
        overshoot: tokens that servers charged above what had been reserved for the call.
        by_role: the same for "model" and "verifier" separately.

    Raises:
        ConfigurationError: a figure is negative, not finite, or not whole where it counts.
    """

    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    exact: bool = True
    overshoot: int = 0
    # No part of the hash, since a mapping has none: equal ones have equal figures all the same.
    by_role: Mapping[str, Usage] = field(default_factory=lambda: EMPTY, repr=False, hash=False)

    def __post_init__(self) -> None:
        # A negative or nameless figure would give budget away. Most are sums of what was checked before: be quick then.
        counts = (
            self.calls, self.requests, self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.overshoot,
        )  # fmt: skip
        if not (set(map(type, counts)) == {int} and min(counts) >= 0):
            self._check_counts()
        for name, amount in (("usd", self.usd), ("seconds", self.seconds)):
            if amount is not None and not 0 <= amount < math.inf:
                raise ConfigurationError(f"Usage: {name}={amount!r} must be a finite number of at least 0")

    def _check_counts(self) -> None:
        for name in ("calls", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "overshoot"):
            value = getattr(self, name)
            if not is_whole(value, 0):
                raise ConfigurationError(f"Usage: {name}={value!r} must be a whole number of at least 0")

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum; an unknown price on one side makes the sum's price unknown."""
        roles = self.by_role
        if other.by_role:
            roles = dict(roles)
            for role, usage in other.by_role.items():
                roles[role] = roles[role] + usage if role in roles else usage
        sums = {
            "calls": self.calls + other.calls,
            "requests": self.requests + other.requests,
            "prompt_tokens": self.prompt_tokens + other.prompt_tokens,
            "completion_tokens": self.completion_tokens + other.completion_tokens,
            "cached_tokens": self.cached_tokens + other.cached_tokens,
            "usd": None if self.usd is None or other.usd is None else self.usd + other.usd,
            "seconds": self.seconds + other.seconds,
            "exact": self.exact and other.exact,
            "overshoot": self.overshoot + other.overshoot,
            "by_role": roles,
        }
        return from_checked(Usage, sums)

    @classmethod
    def sum(cls, usages: Sequence[Usage]) -> Usage:
        """The sum of many, in one go."""
        parts: dict[str, list[Usage]] = {}
        for each in usages:
            for role, part in each.by_role.items():
                parts.setdefault(role, []).append(part)
        prices = [each.usd for each in usages]
        sums = {name: sum([getattr(each, name) for each in usages]) for name in _SUMMED}
        sums["usd"] = None if None in prices else sum(price for price in prices if price is not None)
        sums["exact"] = all([each.exact for each in usages])
        sums["by_role"] = {role: each[0] if len(each) == 1 else cls.sum(each) for role, each in parts.items()}
        return from_checked(Usage, sums)

    @classmethod
    def made(cls, **values: Any) -> Usage:
        """A new one, of all fields by name, whose values were checked before."""
        return from_checked(Usage, values)

    @classmethod
    def counted(cls, **values: Any) -> Usage:
        """A new one of a request, of counts that were checked before; what is left out is nothing."""
        return from_checked(Usage, {**vars(_NOTHING), **values})

    def of_role(self, role: str) -> Usage:
        """Return the same usage as that of a role."""
        return from_checked(Usage, {**vars(self), "by_role": {role: self}})

    def timed(self, seconds: float, *, overshoot: int | None = None) -> Usage:
        """The same, with the time that it took, and with another overshoot where one is given."""
        over = self.overshoot if overshoot is None else overshoot
        return from_checked(Usage, {**vars(self), "seconds": seconds, "overshoot": over})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form; `tokens` is included, `by_role` where there is any."""
        out: dict[str, Any] = {
            "calls": self.calls,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens": self.tokens,
            "cached_tokens": self.cached_tokens,
            "usd": self.usd,
            "seconds": round(self.seconds, 6),
            "exact": self.exact,
            "overshoot": self.overshoot,
        }
        if self.by_role:
            out["by_role"] = {role: usage.to_dict() for role, usage in self.by_role.items()}
        return out


_NOTHING = Usage()
