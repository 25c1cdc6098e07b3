"""Process scores over recorded pools: how well each aggregation tells right from wrong, and what it chooses."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._rows import Row
from tts_plugins.metrics import auc
from tts_plugins.selection import Aggregate, aggregate

Pool = Sequence[Sequence[Mapping[str, Any]]]
HOW: tuple[Aggregate, ...] = ("last", "min", "prod", "mean")
SINGLE = {
    "math_single_prm_llama32_3b": (0.841, 0.845, 0.864, 0.866),
    "math_single_prm_llama31_8b": (0.861, 0.883, 0.900, 0.887),
}
BEAMS = "math_beam16_prm_llama32_3b"
DRAWS = 1000


def pools(folder: Path) -> Iterator[Row]:
    """The rows of this table."""
    for name, known in SINGLE.items():
        pool = read(folder / f"{name}.jsonl.gz")
        for how, must in zip(HOW, known, strict=True):
            value, low, high = interval(pool, partial(area, how=how))
            yield Row(
                number=1, what=f"AUC, {name}, {how}", ours=f"{value:.3f} ({low:.3f} to {high:.3f})", must=f"{must:.3f}",
                met=abs(value - must) < 0.002, figures={"auc": value, "low": low, "high": high},
            )  # fmt: skip
    beams = read(folder / f"{BEAMS}.jsonl.gz")
    for how in HOW:
        value, low, high = interval(beams, partial(area, how=how))
        yield Row(number=2, what=f"AUC, {BEAMS}, {how}", ours=f"{value:.3f} ({low:.3f} to {high:.3f})")
    for n in (4, 16):
        rules: dict[str, Callable[[Sequence[Mapping[str, Any]]], float]] = {"majority": majority}
        for how in HOW:
            rules[f"best, {how}"] = partial(best, how=how)
            rules[f"weighted, {how}"] = partial(weighted, how=how)
        for name, rule in rules.items():
            value, low, high = interval(beams, partial(accuracy, rule=rule, n=n))
            yield Row(number=3, what=f"accuracy of {n} beams, {name}", ours=f"{value:.3f} ({low:.3f} to {high:.3f})")


def read(path: Path) -> Pool:
    """The candidates of each problem that have step scores."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines][1:]
    return [[c for c in record["candidates"] if c.get("step_scores")] for record in records]


def interval(pool: Pool, figure: Callable[[Pool], float]) -> tuple[float, float, float]:
    """A figure and its 95 % interval, by drawing problems again (their candidates are not independent)."""
    rng = random.Random(0)
    drawn = sorted(figure([rng.choice(pool) for _ in pool]) for _ in range(DRAWS))
    return figure(pool), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]


def area(pool: Pool, how: Aggregate) -> float:
    """The probability that a right candidate scores above a wrong one, ties counted half."""
    every = [c for candidates in pool for c in candidates]
    return auc([score(c, how) for c in every], [bool(c["correct"]) for c in every])


def accuracy(pool: Pool, rule: Callable[[Sequence[Mapping[str, Any]]], float], n: int) -> float:
    """The share of problems that the rule solves from `n` of the candidates, drawn anew for each problem."""
    rng = random.Random(1)
    total = 0.0
    for candidates in pool:
        total += rule(candidates if len(candidates) <= n else rng.sample(list(candidates), n)) if candidates else 0.0
    return total / len(pool)


def score(candidate: Mapping[str, Any], how: Aggregate) -> float:
    """The candidate's step scores as one; worked out once."""
    cache = candidate.setdefault("_scores", {})  # type: ignore[attr-defined]
    if how not in cache:
        cache[how] = aggregate(candidate["step_scores"], how)
    return float(cache[how])


def best(candidates: Sequence[Mapping[str, Any]], how: Aggregate) -> float:
    """Whether the best-scored one is right; the share of those that are, where several are equally good."""
    top = max(score(c, how) for c in candidates)
    return share([c for c in candidates if score(c, how) == top])


def weighted(candidates: Sequence[Mapping[str, Any]], how: Aggregate) -> float:
    """Whether the answer with the largest sum of scores is right."""
    return vote(candidates, lambda c: score(c, how))


def majority(candidates: Sequence[Mapping[str, Any]]) -> float:
    """Whether the most frequent answer is right."""
    return vote(candidates, lambda c: 1.0)


def vote(candidates: Sequence[Mapping[str, Any]], weight: Callable[[Mapping[str, Any]], float]) -> float:
    """Whether the leading answer is right; the expectation over those that lead together."""
    sums: dict[str, float] = {}
    right: dict[str, bool] = {}
    for c in candidates:
        if c["answer"] is not None:
            sums[c["answer"]] = sums.get(c["answer"], 0.0) + weight(c)
            right[c["answer"]] = right.get(c["answer"], False) or bool(c["correct"])
    if not sums:
        return 0.0
    top = max(sums.values())
    leaders = [answer for answer, value in sums.items() if value >= top - 1e-12]
    return sum(right[answer] for answer in leaders) / len(leaders)


def share(candidates: Sequence[Mapping[str, Any]]) -> float:
    """The share of right ones."""
    return sum(bool(c["correct"]) for c in candidates) / len(candidates)
