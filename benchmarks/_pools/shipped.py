"""The rules that ship on recorded pools, and what other rules would have done there: in hindsight, and left out."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import comb, exp, lgamma
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks._pools.ground import Ground, geometric
from tts_plugins.policies._stopping.features import TIE, ahead
from tts_plugins.policies._stopping.walks import Bools, Floats, Paths, Samples, walk
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import ShippedRule, shipped_rule

MOST_LOST = 0.0125
Row = dict[str, Any]
Found = Mapping[tuple[str, str], tuple[float, float]]  # by form and numbers: what is lost, times fewer samples


@dataclass(frozen=True, eq=False)
class Recorded:
    """A pool and a way to choose in it."""

    name: str
    pool: Pool
    select: Select

    @property
    def family(self) -> tuple[str, str, Select]:
        """Pools of one data set that were recorded together are alike."""
        header = self.pool.header
        return (header.source or "").split(":")[0], header.dataset, self.select


def on_recorded(folders: Sequence[Path]) -> Iterator[Row]:
    """Run the shipped rules in their own waves, on every pool that has answers and enough candidates."""
    print(f"{'pool':46}{'choice':9}{'n':>3}  {'rule':9}{'samples':>8}{'tokens':>8}{'rounds':>7}{'lost':>9}  95 %")
    found, others = list[tuple[Recorded, Row]](), dict[tuple[int, Select], dict[Recorded, Found]]()
    for recorded in _recorded(folders):
        pool, select, counted = recorded.pool, recorded.select, _counted(recorded.pool)
        for n in (n for n in (8, 16, 40) if pool.fewest >= n):
            priced = pool if counted else _with_tokens(pool)
            others.setdefault((n, select), {})[recorded] = measured(priced, n, select)
            ground = Ground(priced, n, [select], orders=20)
            for name in get_args(ShippedRule):
                row = {"pool": recorded.name, "select": select, "n": n, "rule": name, "counted": counted,
                       **ground.shipped(select, shipped_rule(name, n, select))}  # fmt: skip
                found.append((recorded, row))
                print(_line(row), flush=True)
    yield from (row for _, row in found)
    for name, n in itertools.product(get_args(ShippedRule), (8, 16, 40)):
        _summary(f"{name:9} n={n:2}", [(r, row) for r, row in found if row["rule"] == name and row["n"] == n])
    for (n, select), of_pools in sorted(others.items()):
        for form in sorted({form for form, _ in next(iter(of_pools.values()))}):
            tell(form, of_pools, f"n={n}, {select}")


def _line(row: Row) -> str:
    tokens = f"{row['tokens']:8.2f}" if row["counted"] else f"{'-':>8}"
    low, high = row["interval"]
    return (f"{row['pool'][:44]:46}{row['select']:9}{row['n']:3}  {row['rule']:9}{row['samples']:8.2f}{tokens}"
            f"{row['rounds']:7.1f}{row['lost']:+9.4f}  {low:+.4f} to {high:+.4f}")  # fmt: skip


def _recorded(folders: Sequence[Path]) -> Iterator[Recorded]:
    known = set[int]()
    for path in sorted(path for folder in folders for path in folder.glob("*.jsonl.gz")):
        pool = Pool.read(path)
        candidates = [c for p in pool.problems for c in p.candidates]
        if any(c.correct is None for c in candidates):
            continue
        for select in selects(pool):
            votes = hash((select, *(c.answer for c in candidates)))
            if votes not in known:  # else the same samples in another pool, which adds scores
                known.add(votes)
                yield Recorded(path.name.removesuffix(".jsonl.gz"), pool, select)


def selects(pool: Pool) -> list[Select]:
    """Return the ways to choose that a pool has the records for."""
    answers = any(c.answer is not None for p in pool.problems for c in p.candidates)
    scored = all(c.scored("last") is not None for p in pool.problems for c in p.candidates)
    found: list[Select] = ["majority"] if answers else []
    return found + (["weighted"] if scored and answers else [])


def _counted(pool: Pool) -> bool:
    return all(c.tokens is not None for p in pool.problems for c in p.candidates)


def _with_tokens(pool: Pool) -> Pool:
    """Give each candidate a token, where none were counted: tokens are samples then."""
    made = (replace(p, candidates=tuple(replace(c, tokens=1) for c in p.candidates)) for p in pool.problems)
    return replace(pool, problems=tuple(made))


def _summary(words: str, found: Sequence[tuple[Recorded, Row]]) -> None:
    """Print the geometric mean over pools, with each left out, and over recordings that count once each."""
    if not found:
        return
    saved, families = [row["samples"] for _, row in found], defaultdict[Any, list[float]](list)
    for recorded, row in found:
        families[recorded.family].append(row["samples"])
    without = [geometric(saved[:i] + saved[i + 1 :]) for i in range(len(saved)) if len(saved) > 1]
    apart = f" ({min(without):.2f} to {max(without):.2f} without one of them)" if without else ""
    worst = max(found, key=lambda pair: pair[1]["lost"])
    tokens = [row["tokens"] for _, row in found if row["counted"]]
    told = f"; tokens {geometric(tokens):.2f} on the {len(tokens)} that count them" if tokens else ""
    print(f"{words}: {geometric(saved):.2f} times fewer samples over {len(saved)} pools{apart}, "
          f"{geometric([geometric(each) for each in families.values()]):.2f} over {len(families)} recordings, least "
          f"{min(saved):.2f}; most lost {worst[1]['lost']:.4f} ({worst[0].name}){told}")  # fmt: skip


def measured(pool: Pool, n: int, select: Select, orders: int = 20) -> Found:
    """Run other rules on one pool: leads that fade, and for votes the chance that the leader stays ahead to the end."""
    samples = Samples.of(pool.problems, n, select, "last")
    paths = walk(samples, n, select, orders=orders, seed=3, reference=1.0)
    right, decided = paths.labels(samples.correct), paths.decided(n, select)

    def outcome(stops: Bools) -> tuple[float, float]:
        ends = (stops & paths.heard | decided | (np.arange(n) == n - 1)).argmax(1)
        rows = np.arange(len(ends))
        return float((right[:, -1] - right[rows, ends]).mean()), n / float(ends.mean() + 1)

    return {key: outcome(stops(paths)) for key, stops in _rules(n, select)}


def _rules(n: int, select: Select) -> Iterator[tuple[tuple[str, str], Callable[[Paths], Bools]]]:
    share, step = np.arange(1, n + 1) / n, 0.5 if select == "majority" else 0.25
    for k, fade in itertools.product(np.arange(0.5, 8.1, step), np.arange(0, 8, 0.5)):
        if k > fade:
            yield ("lead", f"k={k:g}, fade={fade:g}"), partial(_ahead, select=select, needed=k - fade * share - TIE)
    if select == "majority":
        chance = np.array([[[_stays(a, b, n - t) if a + b <= t else 0.0 for b in range(n + 1)] for a in range(n + 1)]
                           for t in range(1, n + 1)])  # fmt: skip
        for p in (0.7, 0.75, 0.8, 0.83, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99):
            yield ("stays", f"p={p:g}"), partial(_likely, chance=chance, p=p)


def _ahead(paths: Paths, select: Select, needed: Floats) -> Bools:
    found: Bools = np.asarray(ahead(paths.state, select) >= needed)
    return found


def _likely(paths: Paths, chance: Floats, p: float) -> Bools:
    first, second = (votes.astype(int) for votes in (paths.state.first, paths.state.second))
    found: Bools = chance[np.arange(first.shape[1]), first, second] >= p
    return found


def _stays(first: int, second: int, left: int) -> float:
    """Return the chance that the leader is ahead of the next after `left` more votes for either, ties half.

    Its share of their votes has a uniform prior, as in Adaptive-Consistency (2305.11860), which asks whether the share
    is above one half instead: for `left` without end that is the same.
    """
    if not first:
        return 0.0
    ways = (
        comb(left, k) * exp(_beta(first + 1 + k, second + 1 + left - k) - _beta(first + 1, second + 1))
        * (1 if first + k > second + left - k else 0.5)
        for k in range(left + 1) if first + k >= second + left - k
    )  # fmt: skip
    return sum(ways)


def _beta(a: int, b: int) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def tell(form: str, found: Mapping[Recorded, Found], what: str) -> None:
    """Print the best rule of a form in hindsight, and what the best of the others does to pools that are left out."""
    best, saved = _best(form, list(found.values()))
    worst = max(of[best][0] for of in found.values())
    print(f"{what}, {form}: in hindsight {best[1]} saves {saved:.2f} times and loses at most {worst:.4f}")
    apart: dict[str, Callable[[Recorded], object]] = {"pool": lambda r: r.name, "recording": lambda r: r.family}
    for words, group in apart.items():
        kept = list[tuple[float, float, str, str]]()
        for left_out in {group(r) for r in found}:
            others = [of for r, of in found.items() if group(r) != left_out]
            if others:
                rule, _ = _best(form, others)
                kept += [(*of[rule], r.name, rule[1]) for r, of in found.items() if group(r) == left_out]
        if kept:
            lost, _, name, rule_of = max(kept)
            over = sum(each[0] > MOST_LOST for each in kept)
            saved = geometric([each[1] for each in kept])
            print(f"    chosen without each {words}: saves {saved:.2f} times there, loses at most {lost:.4f} ({name}, "
                  f"{rule_of}), more than {MOST_LOST} on {over} of {len(kept)}")  # fmt: skip


def _best(form: str, found: Sequence[Found]) -> tuple[tuple[str, str], float]:
    """Return the rule of a form that saves most within the loss; where none is within it, that which loses least."""
    most = {rule: max(of[rule][0] for of in found) for rule in found[0] if rule[0] == form}
    saved = {rule: geometric([of[rule][1] for of in found]) for rule, lost in most.items() if lost <= MOST_LOST}
    best = max(saved, key=saved.__getitem__) if saved else min(most, key=most.__getitem__)
    return best, geometric([of[best][1] for of in found])
