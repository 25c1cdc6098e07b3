"""The figures of one account. Pure arithmetic: who may take from it, and when, is decided elsewhere."""

from __future__ import annotations

from operator import add, attrgetter

from tts_plugins.budget import DIMENSIONS, PICO, ZERO, Amount, Budget, Need
from tts_plugins.types import EMPTY, Usage

__all__ = ["Balance"]

_NO_LIMITS = (None,) * len(DIMENSIONS)
_COUNTS = ("calls", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds", "overshoot")
_counts_of = attrgetter(*_COUNTS)


class Tally:
    """The sum of usages, by role too. It keeps none of them: there may be thousands, of calls in flight at once."""

    __slots__ = ("_of_none", "_sums")

    def __init__(self) -> None:
        # By role: the counts, whether they are exact, and dollars if the price is known.
        self._sums: dict[str, tuple[tuple[float, ...], bool, float | None]] = {}
        self._of_none: Usage | None = None

    def add(self, usage: Usage, role: str | None) -> None:
        """Add one, as that of a role; None where it says itself whose it is."""
        if role is None:
            self._of_none = usage if self._of_none is None else self._of_none + usage
            return
        counts, exact, usd = _counts_of(usage), usage.exact, usage.usd
        if (before := self._sums.get(role)) is not None:
            counts = tuple(map(add, before[0], counts))
            exact = before[1] and exact
            usd = None if usd is None or before[2] is None else before[2] + usd
        self._sums[role] = counts, exact, usd

    def total(self) -> Usage:
        """Return the sum."""
        parts = [] if self._of_none is None else [self._of_none]
        for role, (counts, exact, usd) in self._sums.items():
            part = Usage.made(**dict(zip(_COUNTS, counts, strict=True)), exact=exact, usd=usd, by_role=EMPTY)
            parts.append(part.of_role(role))
        return Usage() if not parts else parts[0] if len(parts) == 1 else Usage.sum(parts)


class Balance(Tally):
    """Limits, what is spent and held of them, and on which usage.

    Invariant: spent + held <= limit + overshoot, in each dimension.
    """

    __slots__ = ("budget", "held", "limits", "overshoot", "spent", "unlimited")

    def __init__(self, budget: Budget | None) -> None:
        super().__init__()
        self.budget = budget
        self.limits = _NO_LIMITS if budget is None else tuple(budget.limit(d) for d in DIMENSIONS)
        self.unlimited = self.limits == _NO_LIMITS
        self.spent = self.held = self.overshoot = ZERO

    @property
    def named(self) -> str:
        """The limits in words, but for the time."""
        limits = {} if self.budget is None else self.budget.to_dict()
        return ", ".join(f"{name}={value}" for name, value in limits.items() if name != "seconds")

    def fit(self, unit: Need, at_most: int, own: Amount = ZERO) -> int:
        """Return how many times `unit` fits, `at_most` at most; `own` of it is held already."""
        if self.unlimited:
            return at_most
        count, spent, held, (each, once) = at_most, self.spent, self.held, unit
        for i, limit in enumerate(self.limits):
            if limit is not None and each[i] + once[i] > 0:
                free = limit - spent[i] - held[i]
                room = (free if free > 0 else 0) + own[i] - once[i]
                fits = room // each[i] if each[i] > 0 else count if room >= 0 else 0
                count = min(count, fits)
        return max(count, 0)

    def can_ever_fit(self, unit: Amount, own: Amount = ZERO) -> bool:
        """Return whether `unit` would fit if all that others hold came back."""
        if self.unlimited:
            return True
        for need, limit, spent, mine in zip(unit, self.limits, self.spent, own, strict=True):
            if need > 0 and limit is not None and need > max(limit - spent, mine):
                return False
        return True

    def overdrawn(self) -> bool:
        """Return whether what is spent and held is more than a limit, after an overshoot."""
        limits = zip(self.limits, self.spent, self.held, strict=True)
        return any(limit is not None and spent + held > limit for limit, spent, held in limits)

    def left(self) -> dict[str, float | None]:
        """Return what is neither spent nor held, for calls, tokens and usd; None where there is no limit."""
        room = [None if n is None else n - s - h for n, s, h in zip(self.limits, self.spent, self.held, strict=True)]
        return {"calls": room[0], "tokens": room[1], "usd": None if room[2] is None else room[2] / PICO}

    def hold(self, amount: Amount) -> None:
        """Count an amount as held."""
        self.held = self.held.plus(amount)

    def close(self, amount: Amount, used: Amount, over: Amount) -> None:
        """Give back what was held and count what was used, `over` of which was not held."""
        if amount != ZERO:
            self.held = self.held.minus(amount)
        if used is not ZERO:
            self.spent = self.spent.plus(used)
            if over != ZERO:
                self.overshoot = self.overshoot.plus(over)
