"""Checks whether a pool's candidates are stored under their own problems: a wrongly sliced batch looks like bad luck.

All checks compare answers; none uses `correct`, which was graded after the mistake. Each names its p-value:

- mixed: answers of one problem agree with each other no more than those of random candidates would.
- misplaced: answers match their own problem's gold answer no more than other problems' gold answers.
- rotated: they match the gold answer of the problem k places on better than their own.
- swapped: two problems each hold answers that are the other's, more than chance puts there: a few, by the answers
  that lead there; most of them, by gold answers that no third problem has.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tts_plugins.answers import extract, normalise
from tts_plugins.errors import DataError
from tts_plugins.pools import Pool, PoolCandidate

Kind = Literal["mixed", "misplaced", "rotated", "swapped"]
Answers = Sequence[Sequence[str]]
_CLASS = re.compile(r"g\d+")
_SHUFFLES = 199


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One suspicion. `p` is the probability of the observation: for "mixed" and "misplaced" under random assignment,
    which is small for a sound pool; for "rotated" and "swapped" under sound assignment."""

    kind: Kind
    problems: tuple[str, ...]
    detail: str
    p: float


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What was checked, and what was found. A check that the pool's data do not allow is not in `checked`."""

    checked: tuple[Kind, ...]
    findings: tuple[Finding, ...]

    def raise_for_findings(self) -> None:
        """Raise if anything was found.

        Raises:
            DataError: names the first finding.
        """
        if self.findings:
            first = self.findings[0]
            more = f" (and {len(self.findings) - 1} more findings)" if len(self.findings) > 1 else ""
            raise DataError(
                f"pool: candidates seem to be stored under the wrong problems ({first.kind}): {first.detail}{more}"
            )


def check_assignment(pool: Pool, *, alpha: float = 0.001, seed: int = 0) -> Assignment:
    """Look for candidates that belong to other problems.

    Answers that are classes (g0, g1, …) say nothing across problems; then the text's own answer is read.

    Args:
        alpha: the error level, over all problems, at which a rotation or a swap is reported. For a pool to pass, random
            assignment has to be rejected at 0.01.
    """
    answers = [[a for c in p.candidates if (a := _value(c)) is not None] for p in pool.problems]
    golds = [None if p.answer is None else normalise(p.answer) for p in pool.problems]
    names = [p.id for p in pool.problems]
    checked: list[Kind] = []
    findings: list[Finding] = []
    rng = random.Random(seed)
    if sum(len(a) > 1 for a in answers) > 4 and len({a for own in answers for a in own}) > 1:
        checked += ["mixed", "swapped"]
        findings += _mixed(answers, rng)
        findings += _swapped(answers, golds, names, alpha)
    if sum(g is not None for g in golds) > 4 and len(set(golds)) > len(golds) / 2 and any(answers):
        checked += ["misplaced", "rotated"]
        findings += _against_golds(answers, golds, rng, alpha)
    return Assignment(checked=tuple(checked), findings=tuple(findings))


def _value(candidate: PoolCandidate) -> str | None:
    """Return the candidate's answer as a value that means the same under every problem."""
    if candidate.answer is not None and not _CLASS.fullmatch(candidate.answer):
        return normalise(candidate.answer)
    return extract(candidate.text) if candidate.text else None


def _agreeing(counts: Counter[str]) -> int:
    return sum(k * (k - 1) // 2 for k in counts.values())


def _mixed(answers: Answers, rng: random.Random) -> Iterator[Finding]:
    seen = sum(_agreeing(Counter(own)) for own in answers)
    every = [a for own in answers for a in own]
    if not _agreeing(Counter(every)):
        return  # no answer occurs twice, so nothing can agree
    reached = 0
    for _ in range(_SHUFFLES):
        rng.shuffle(every)
        rest, total = iter(every), 0
        for own in answers:
            total += _agreeing(Counter(next(rest) for _ in own))
        reached += total >= seen
    p = (1 + reached) / (1 + _SHUFFLES)
    if p > 0.01:
        pairs = sum(len(own) * (len(own) - 1) // 2 for own in answers)
        detail = f"answers of one problem agree in {seen} of {pairs} pairs, no more than random candidates do"
        yield Finding(kind="mixed", problems=(), detail=detail, p=p)


def _swapped(
    answers: Answers, golds: Sequence[str | None], names: Sequence[str], alpha: float
) -> Iterator[Finding]:  # fmt: skip
    """Find pairs of problems that each hold the other's leading answer, which is rare there, or its gold answer."""
    counts = [Counter(own) for own in answers]
    overall: Counter[str] = Counter(a for own in answers for a in own)
    leaders = [
        {a for a, k in c.items() if k >= max(2, len(own) / 4)} for c, own in zip(counts, answers, strict=True)
    ]  # answers that are so frequent that they belong to the problem

    def of_gold(here: int, there: int) -> set[str]:
        # If most are exchanged, the leaders are exchanged with them, and only the gold answers stay. Wrong answers
        # come in clusters, so one that any third problem has, such as a small number, proves nothing.
        mine, other = golds[here], golds[there]
        if other is None or mine is None or counts[here][other] <= counts[here][mine]:
            return set()
        return {other} if overall[other] == counts[here][other] + counts[there][other] else set()

    def odds(here: int, there: int, foreign: set[str]) -> float:
        strays = sum(counts[here][a] for a in foreign)
        # Chance puts these answers here as often as under third problems.
        elsewhere = sum(overall[a] - counts[here][a] - counts[there][a] for a in foreign)
        others = overall.total() - len(answers[here]) - len(answers[there])
        return _poisson_tail(strays, len(answers[here]) * (elsewhere + 0.5) / max(others, 1)) if strays else 1.0

    tests = len(answers) * (len(answers) - 1)  # two tests for each pair
    for i, j in itertools.combinations(range(len(answers)), 2):
        some = odds(i, j, leaders[j] - leaders[i]), odds(j, i, leaders[i] - leaders[j])
        full = odds(i, j, of_gold(i, j)), odds(j, i, of_gold(j, i))
        p, weaker = min((min(1.0, a * b * tests), max(a, b)) for a, b in (some, full))
        if weaker < 1 and p < alpha:
            detail = f"problems {names[i]!r} and {names[j]!r} each hold answers that are the other's"
            yield Finding(kind="swapped", problems=(names[i], names[j]), detail=detail, p=p)


def _against_golds(
    answers: Answers, golds: Sequence[str | None], rng: random.Random, alpha: float
) -> Iterator[Finding]:
    shares = [{a: k / len(own) for a, k in Counter(own).items()} for own in answers]

    def matched(order: Sequence[str | None]) -> list[float]:
        return [share.get(gold, 0.0) if gold is not None else 0.0 for share, gold in zip(shares, order, strict=True)]

    own = matched(golds)
    shuffled, reached = list(golds), 0
    for _ in range(_SHUFFLES):
        rng.shuffle(shuffled)
        reached += sum(matched(shuffled)) >= sum(own)
    p = (1 + reached) / (1 + _SHUFFLES)
    if p > 0.01:
        detail = (
            f"they match their own problem's gold answer no more often than another's (a share of "
            f"{sum(own) / len(own):.3f}); it may also be that nearly all of them are wrong"
        )
        yield Finding(kind="misplaced", problems=(), detail=detail, p=p)
    best: tuple[float, int, float] | None = None
    for shift in range(1, len(golds)):
        moved = matched([*golds[shift:], *golds[:shift]])
        more = sum(b > a for a, b in zip(own, moved, strict=True))
        less = sum(a > b for a, b in zip(own, moved, strict=True))
        chance = _coin_tail(more, more + less) * (len(golds) - 1)
        if sum(moved) > sum(own) and chance < alpha and (best is None or sum(moved) > best[2]):
            best = (chance, shift, sum(moved))
    if best is not None:
        detail = f"the candidates match the gold answers {best[1]} places on better than their own"
        yield Finding(kind="rotated", problems=(), detail=detail, p=best[0])


def _poisson_tail(k: int, rate: float) -> float:
    """Return P(X >= k)."""
    below = math.fsum(math.exp(i * math.log(rate) - rate - math.lgamma(i + 1)) for i in range(k))
    return min(1.0, max(0.0, 1.0 - below))


def _coin_tail(heads: int, tosses: int) -> float:
    """Return the probability of at least so many heads."""
    return float(sum(math.comb(tosses, k) for k in range(heads, tosses + 1)) / 2**tosses)
