"""Rules of one or two numbers, which compete with the fitted ones: stop once far enough ahead, or after so many."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tts_plugins.policies._stopping.features import TIE
from tts_plugins.policies._stopping.risk_bounds import Bools
from tts_plugins.policies._stopping.walks import Floats, Ints
from tts_plugins.selection import Select

_LEVELS: dict[Select, tuple[float, ...]] = {
    "majority": (1, 2, 3, 4, 5, 6, 8),
    "weighted": (0.5, 0.75, 1, 1.5, 2, 3, 4, 6),
    "best": (0.8, 0.9, 0.95),
}
_ENDS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)


class Simple(NamedTuple):
    """Stops once so far ahead (`best`: once a score is so high), and after so many; None for never."""

    enough: float | None
    at_most: int | None


NEVER = Simple(None, None)


class Totals(NamedTuple):
    """Of each problem, means over its walks: right answers, cost and samples; (..., problems)."""

    right: Floats
    cost: Floats
    samples: Floats


class Simples:
    """All of them on the same walks; `totals` are (rules, problems)."""

    def __init__(self, ahead: Floats, over: Bools, right: Floats, cost: Floats, orders: int, select: Select) -> None:
        walks, n = ahead.shape
        ends = [k for k in _ENDS if k < n] + [None]
        self.rules = [Simple(level, end) for level in (*_LEVELS[select], None) for end in ends]
        rows, found = np.arange(walks), list[Totals]()
        for level in (*_LEVELS[select], None):
            stops = over.copy() if level is None else over | (ahead >= level - TIE)
            stops[:, -1] = True
            first: Ints = stops.argmax(1)
            for end in ends:
                at = first if end is None else np.minimum(first, end - 1)
                found.append(summed(right[rows, at], cost[rows, at], (at + 1).astype(float), orders))
        self.totals = Totals(*(np.stack(each) for each in zip(*found, strict=True)))

    def best(self, price: float, train: Ints) -> int:
        """The rule that is worth most on some problems, at a price."""
        t = self.totals
        return int((t.right[:, train] - price * t.cost[:, train]).mean(1).argmax())

    def validated(self, price: float, fold: Ints) -> Totals:
        """What comes of choosing one on all folds but one, and running it on that one."""
        out = Totals(*(np.zeros(len(fold)) for _ in Totals._fields))
        for part in range(int(fold.max()) + 1):
            inside, rest = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
            rule = self.best(price, rest if len(rest) else inside)
            for made, table in zip(out, self.totals, strict=True):
                made[inside] = table[rule, inside]
        return out


def summed(right: Floats, cost: Floats, samples: Floats, orders: int) -> Totals:
    """The means of each problem's walks, which stand together."""
    return Totals(*(values.reshape(-1, orders).mean(1) for values in (right, cost, samples)))
