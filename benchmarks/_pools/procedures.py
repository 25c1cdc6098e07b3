"""Procedures that make a promise of accuracy, beside each other on the same draws.

Each tests rules on some problems and takes the cheapest that passed, else the vote that is decided. The kinds on which
they were first compared are not at hand, so that their figures (`ELSEWHERE`) and those here differ by the kinds, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks._pools.drawn import Population, Walked, samples
from benchmarks._pools.ground import geometric
from tts_plugins.policies._stopping.risk_bounds import lost_at_most, within
from tts_plugins.policies._stopping.threshold_rules import NEVER, ThresholdRule, ladders
from tts_plugins.policies._stopping.walks import Floats

Row = dict[str, Any]
Ladder = Sequence[ThresholdRule]
_CAPS = ((8, 1), (6, 0.8), (5, 0.6), (4, 0.5), (4, 0.4), (3, 0.4), (3, 0.3), (3, 0.25), (2, 0.25), (2, 0.2), (2, 0.15),
         (1, 0.1))  # fmt: skip
# Of six other kinds, by (problems, target): "leads, and leads with caps" is what was recommended there.
ELSEWHERE: dict[str, dict[tuple[int, float], float]] = {
    name: dict(zip(((60, 0.01), (60, 0.05), (150, 0.01), (500, 0.01), (500, 0.05)), saved, strict=True))
    for name, saved in {
        "leads": (2.62, 5.07, 2.95, 3.46, 7.35),
        "leads, and leads with caps": (2.55, 4.93, 2.82, 3.37, 8.76),
        "three ladders": (2.51, 4.73, 2.73, 3.28, 8.53),
        "uncorrected": (2.89, 5.83, 3.18, 3.70, 9.40),
        "Bonferroni": (2.39, 4.15, 2.64, 3.07, 7.30),
        "split sample": (1.55, 1.88, 1.62, 1.87, 4.37),
        "e-values along the leads": (1.38, 1.38, 1.38, 2.93, 6.39),
        "the decided vote alone": (1.38,) * 5,
    }.items()
}


class Procedures:
    """The procedures, for `n` samples and one confidence: each returns the rules that pass on some problems."""

    def __init__(self, n: int, confidence: float) -> None:
        self._leads, self._fading = ladders("majority", n)
        self._caps = [ThresholdRule(lead, max(1, round(cap * n))) for lead, cap in _CAPS]
        self._error = 1 - confidence

    @property
    def all(self) -> dict[str, Callable[[Walked, float], Iterable[ThresholdRule]]]:
        """By name, as in `ELSEWHERE`, and those of this package."""
        leads, caps, fading = self._leads, self._caps, self._fading
        both = [*leads, *caps]
        return {
            "leads": lambda on, target: self._climbed(on, target, leads),
            "leads, and leads with caps": lambda on, target: self._climbed(on, target, leads, caps),
            "three ladders": lambda on, target: self._climbed(on, target, leads, caps, fading),
            "uncorrected": lambda on, target: self._passing(on, target, both, tests=1),
            "Bonferroni": lambda on, target: self._passing(on, target, both, tests=len(both)),
            "split sample": lambda on, target: self._split(on, target, both),
            "e-values along the leads": self._bet,
            "the decided vote alone": lambda on, target: (),
            "as built: leads, and fading leads": lambda on, target: self._climbed(on, target, leads, fading),
        }

    def rungs(self, name: str) -> Ladder:
        """The rules that a procedure may take: the cheapest within the target in hindsight is its limit."""
        of_fading = name.startswith(("as built", "three"))
        caps = () if name in ("leads", "e-values along the leads") or name.startswith("as built") else self._caps
        return [] if name.startswith("the decided") else [*self._leads, *caps, *(self._fading if of_fading else ())]

    def _climbed(self, on: Walked, target: float, *climbs: Ladder) -> Iterator[ThresholdRule]:
        level = 1 - self._error / len(climbs)
        for ladder in climbs:
            yield from within(target, ladder, lambda rule: lost_at_most(on.outcome(rule)[0], level, rare=False))

    def _passing(self, on: Walked, target: float, rules: Ladder, tests: int) -> list[ThresholdRule]:
        level = 1 - self._error / tests
        return [rule for rule in rules if lost_at_most(on.outcome(rule)[0], level, rare=False) <= target]

    def _split(self, on: Walked, target: float, rules: Ladder) -> list[ThresholdRule]:
        """The cheapest rule that seems to keep the target on one half, if it passes on the other."""
        seeming = [rule for rule in rules if on.outcome(rule)[0][::2].mean() <= target]
        best = min(seeming, key=lambda rule: on.outcome(rule)[1], default=NEVER)
        return [best] if lost_at_most(on.outcome(best)[0][1::2], 1 - self._error, rare=False) <= target else []

    def _bet(self, on: Walked, target: float) -> Iterator[ThresholdRule]:
        return within(target, self._leads, lambda rule: self._betting(on, rule, target))

    def _betting(self, on: Walked, rule: ThresholdRule, target: float) -> float:
        """0 where the capital of bets against "it loses more than the target" has reached 1 / error, else 1.

        Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting", with aGRAPA's bets.
        """
        spared: Floats = target - on.outcome(rule)[0]  # at most 0 in the mean, if more is lost
        count = np.arange(1, len(spared) + 1)
        mean = (0.5 * target + np.append(0.0, spared.cumsum()[:-1])) / count
        square = (0.25 + np.append(0.0, (spared**2).cumsum()[:-1])) / count
        bets = np.clip(mean / square, 0, 0.5 / (1 - target))
        return 0.0 if np.log1p(bets * spared).cumsum().max() >= -np.log(self._error) else 1.0


def compared(
    kinds: Sequence[str], cells: Sequence[tuple[int, float]], draws: int, n: int, confidence: float, problems: int
) -> Iterator[Row]:
    """Print each procedure's savings, how often it kept the target in the worst kind, and its limit in hindsight."""
    made = Procedures(n, confidence)
    populations = {kind: Population(kind, n, problems) for kind in kinds}
    found: dict[tuple[str, int, float], list[tuple[float, float]]] = {}
    for size in sorted({size for size, _ in cells}):
        for kind in kinds:
            results: dict[tuple[str, float], list[tuple[float, float]]] = {}
            for seed in range(draws):
                on = Walked([samples(kind, size, n, 1000 + seed)], n, orders=20, seed=0)
                for target in (target for s, target in cells if s == size):
                    for name, passed in made.all.items():
                        best = min([NEVER, *passed(on, target)], key=lambda rule: on.outcome(rule)[1])
                        results.setdefault((name, target), []).append(populations[kind].outcome(best))
            for (name, target), of in results.items():
                kept = float(np.mean([lost <= target + 1e-9 for lost, _ in of]))
                found.setdefault((name, size, target), []).append((kept, geometric([saved for _, saved in of])))
    limits = {
        (name, target): geometric([_limit(populations[kind], made.rungs(name), target) for kind in kinds])
        for name in made.all for _, target in cells
    }  # fmt: skip
    print(f"{'kept in the worst kind / saved':36}" + "".join(f"{f'{size}, {target}':>15}" for size, target in cells))
    for name in made.all:
        rows = [found[name, *cell] for cell in cells]
        worst, saved = [min(k for k, _ in row) for row in rows], [geometric([s for _, s in row]) for row in rows]
        print(f"{name:36}" + "".join(f"{f'{k:.0%} / {s:.2f}':>15}" for k, s in zip(worst, saved, strict=True)))
        beside = [ELSEWHERE.get(name, {}).get(cell) for cell in cells]
        if any(beside):
            print(f"{'  on other kinds, saved':36}" + "".join(f"{f'{s:.2f}' if s else '':>15}" for s in beside))
        bound = [limits[name, target] for _, target in cells]
        print(f"{'  in hindsight':36}" + "".join(f"{s:15.2f}" for s in bound), flush=True)
        yield {"procedure": name, "cells": list(cells), "kept": worst, "saved": saved, "limit": bound}


def _limit(population: Population, rules: Ladder, target: float) -> float:
    outcomes = (population.outcome(rule) for rule in (NEVER, *rules))
    return max(saved for lost, saved in outcomes if lost <= target + 1e-9)
