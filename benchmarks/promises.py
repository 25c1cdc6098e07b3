"""How often a promise of accuracy is kept, and what it saves: `python -m benchmarks.promises`.

Pools are drawn anew, a rule is fitted to each, and it is run on one large pool of the same kind: the loss there is all
but the true one. Measured against another small half instead, 13 to 42 % of true promises look broken. A promise with
90 % confidence may be broken one time in ten. `--shipped DIR` runs the rules that ship on recorded pools instead, and
`--recorded DIR` draws problems from the recorded pools, with replacement, and measures on all of each pool.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks._files import write_json
from benchmarks._pools.drawn import KINDS, VOTES, draw
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.policies._calibration.options import sampling
from tts_plugins.policies._calibration.replayed_trials import Sampling, Trials, select_of
from tts_plugins.policies._stopping.threshold_rules import ladders
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import Rule, ShippedRule, VoteLead, shipped_rule
from tts_plugins.strategies import BestOfN, SelfConsistency

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Print, for each number of problems and each target, how often it was kept and what was saved."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__)
    parser.add_argument("--draws", type=int, default=200, metavar="N", help="pools drawn of each kind")
    parser.add_argument("--problems", default="60,150,500", metavar="N,N,…", help="of each pool")
    parser.add_argument("--targets", default="0.01,0.02,0.05", metavar="X,X,…", help="most accuracy to lose")
    parser.add_argument("--confidence", type=float, default=0.9, metavar="X", help="with which they are kept")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="of pools; all if left out")
    parser.add_argument("--n", type=int, default=40, metavar="N", help="candidates of a problem")
    parser.add_argument("--orders", type=int, default=40, metavar="N", help="walks through each problem in a fit")
    parser.add_argument("--shipped", type=Path, metavar="DIR", help="the shipped rules on the recorded pools there")
    parser.add_argument("--calibrate", action="store_true", help="fit by `calibrate`, with its way to choose")
    parser.add_argument("--recorded", type=Path, metavar="DIR", help="problems drawn from the recorded pools there")
    parser.add_argument("--short", action="store_true", help="a few draws, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    if given.short:
        given.draws, given.problems, given.targets, given.n = 3, "60", "0.05", 16
    if given.recorded:
        rows = list(_from_recorded(given))
    else:
        rows = list(_on_recorded(given.shipped) if given.shipped else _on_drawn(given))
    if given.json:
        write_json(given.json, {"rows": rows})
    return 0


def _on_drawn(given: argparse.Namespace) -> Iterator[Row]:
    names: Sequence[str] = given.kind or list(KINDS)
    sizes, targets = [int(x) for x in given.problems.split(",")], [float(x) for x in given.targets.split(",")]
    every: tuple[Select, ...] = ("majority", "weighted", "best")
    grounds = {
        name: Ground(
            draw(name, 300 if given.short else 1500, given.n, 1), given.n,
            every if given.calibrate and KINDS[name].select != "majority" else None,
        )
        for name in names
    }  # fmt: skip
    print(f"{'problems':>8} {'target':>6}  {'kind':15}{'kept':>6}{'saved':>7}{'lost':>9}  VoteLead(3) saved, lost")
    for size in sizes:
        for target in targets:
            start, rows = time.perf_counter(), list[Row]()
            for name in names:
                rows.append(_promise(name, grounds[name], size, target, given))
                print(_line(rows[-1]), flush=True)
            votes = [row for row in rows if row["kind"] in VOTES]
            if votes:
                worst, mean = min(row["kept"] for row in votes), geometric([row["saved"] for row in votes])
                print(_beside_a_lead(votes))
                limits = [grounds[row["kind"]].limit("majority", target) for row in votes]
                print(f"{'':16}in hindsight the boldest rung that loses no more: saved {geometric(limits):.2f} times")
                print(f"{size:8} {target:6}  votes: kept {worst:.0%} in the worst kind; saved {mean:.2f} times "
                      f"({time.perf_counter() - start:.0f} s)", flush=True)  # fmt: skip
            yield from rows


def _promise(name: str, ground: Ground, size: int, target: float, given: argparse.Namespace) -> Row:
    select, lost, saved = KINDS[name].select, list[float](), list[float]()
    for seed in range(given.draws):
        pool = draw(name, size, given.n, 1000 + seed)
        if given.calibrate:
            result = ground.beside_the_best(_calibrated(pool, target, given))
        else:
            rule = LearnedStopping.fit(
                pool, n=given.n, select=select, target=target, confidence=given.confidence, orders=given.orders
            )
            result = ground.measure(select, rule)
        lost.append(result[0])
        saved.append(result[1])
    beside = ground.measure(select, VoteLead(3)) if select == "majority" else None
    return {
        "kind": name, "problems": size, "target": target, "kept": float(np.mean(np.array(lost) <= target + 1e-9)),
        "saved": geometric(saved), "lost": float(np.mean(lost)), "most lost": max(lost), "vote_lead_3": beside,
    }  # fmt: skip


def _calibrated(pool: Pool, target: float, given: argparse.Namespace) -> Sampling:
    """What `calibrate` takes for all of the samples: it chooses the way to choose, too."""
    policy = calibrate(
        pool, budgets=(given.n,), target=target, confidence=given.confidence, hold_out=0, wave=1, aggregate="last",
        orders=min(given.orders, 10),
    )  # fmt: skip
    fixed = policy.plans[0].fixed
    assert isinstance(fixed, BestOfN | SelfConsistency)
    return fixed


def _line(row: Row) -> str:
    beside = row["vote_lead_3"]
    said = "" if beside is None else f"  {beside[1]:.2f}, {beside[0]:+.4f}"
    return (f"{row['problems']:8} {row['target']:6}  {row['kind']:15}{row['kept']:6.0%}{row['saved']:7.2f}"
            f"{row['lost']:+9.4f}{said}")  # fmt: skip


def _beside_a_lead(rows: Sequence[Row]) -> str:
    """The tokens that fitted rules take beside an untuned lead of three, on the kinds where that one loses little."""
    near = {r["kind"]: r["vote_lead_3"][1] / r["saved"] for r in rows if r["vote_lead_3"][0] <= _LITTLE}
    if not near:
        return f"                VoteLead(3) loses more than {_LITTLE} on all kinds"
    each = ", ".join(f"{kind} {times:.2f}" for kind, times in near.items())
    mean = geometric(list(near.values()))
    return f"                times the tokens of VoteLead(3), where it loses at most {_LITTLE}: {mean:.2f} ({each})"


_LITTLE = 0.005


class Ground:
    """A pool on which rules are measured, all on the same walks."""

    def __init__(self, pool: Pool, n: int, selects: Sequence[Select] | None = None, orders: int = 6) -> None:
        self.n = n
        given = selects or [KINDS[pool.header.model].select]
        self._trials = Trials(pool.problems, n, given, how="last", orders=orders, seed=3, extra=0.0)
        self._known: dict[str, tuple[float, float]] = {}

    def measure(self, select: Select, rule: Rule) -> tuple[float, float]:
        """Accuracy lost to all samples chosen from in the same way, and how many times fewer tokens the rule took."""
        full, own = self._run(select, None), self._run(select, rule)
        return full[0] - own[0], full[1] / own[1]

    def limit(self, select: Select, target: float) -> float:
        """What the cheapest rung of the ladders saves whose loss here is within the target: no fit does better."""
        rules = [LearnedStopping(n=self.n, select=select, enough=rule.enough, at_most=rule.at_most)
                 for ladder in ladders(select, self.n) for rule in ladder]  # fmt: skip
        found = [self.measure(select, rule) for rule in rules]
        return max((saved for lost, saved in found if lost <= target), default=1.0)

    def beside_the_best(self, strategy: Sampling) -> tuple[float, float]:
        """The same for a strategy, beside all samples chosen from in whichever way is best here."""
        full = max((self._run(select, None) for select in self._trials.paths), key=lambda found: found[0])
        if strategy.stop is None:
            found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
            own = float(found.right.mean()), float(found.tokens.mean())
        else:
            own = self._run(select_of(strategy), strategy.stop)
        return full[0] - own[0], full[1] / own[1]

    def _run(self, select: Select, rule: Rule | None) -> tuple[float, float]:
        # Rules that differ in nothing but what they report of their fit stop at the same places.
        key = (rule.enough, rule.at_most, rule.weights) if isinstance(rule, LearnedStopping) else rule
        name = f"{select} {key!r}"
        if name not in self._known:
            strategy = sampling(select, self.n, rule, 1)
            found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
            self._known[name] = (float(found.right.mean()), float(found.tokens.mean()))
        return self._known[name]


def _on_recorded(folder: Path) -> Iterator[Row]:
    """The shipped rules on every recorded pool that has answers, or exact checks, and enough candidates."""
    print(f"{'pool':36}{'choice':10}{'n':>4}  {'rule':10}{'saved':>7}{'lost':>9}")
    found = list[Row]()
    for path in sorted(folder.glob("*.jsonl.gz")):
        pool = Pool.read(path)
        if any(c.correct is None or c.tokens is None for p in pool.problems for c in p.candidates):
            continue
        for select in _selects(pool):
            for n in (n for n in (8, 16, 40) if pool.fewest >= n):
                ground = Ground(pool, n, [select], orders=20)
                for name in get_args(ShippedRule):
                    lost, saved = ground.measure(select, shipped_rule(name, n, select))
                    found.append(
                        {"pool": path.stem, "select": select, "n": n, "rule": name, "saved": saved, "lost": lost}
                    )
                    print(f"{path.stem[:34]:36}{select:10}{n:4}  {name:10}{saved:7.2f}{lost:+9.4f}", flush=True)
    yield from found
    for name in get_args(ShippedRule):
        for n in (8, 16, 40):
            rows = [r for r in found if r["rule"] == name and r["n"] == n and r["select"] != "best"]
            if rows:
                mean, least = geometric([r["saved"] for r in rows]), min(r["saved"] for r in rows)
                lost = max(r["lost"] for r in rows)
                print(
                    f"{name:10} n={n}: saved {mean:.2f} times (geometric mean), least {least:.2f}; most lost {lost:.4f}"
                )


def _from_recorded(given: argparse.Namespace) -> Iterator[Row]:
    """Fits to problems drawn from each recorded pool, beside a lead of three that nobody tuned."""
    head = f"{'pool':30}{'choice':10}{'problems':>8} {'target':>6}{'kept':>6}{'saved':>7}{'lost':>9}"
    print(f"{head}  lead of 3: saved, lost")
    for path in sorted(given.recorded.glob("*.jsonl.gz")):
        pool = Pool.read(path)
        if pool.fewest < given.n or any(c.correct is None or c.tokens is None for p in pool.problems
                                        for c in p.candidates):  # fmt: skip
            continue
        for select in _selects(pool):
            ground = Ground(pool, given.n, [select], orders=200)  # few problems, so all but without noise
            lead = ground.measure(select, VoteLead(3, weighted=select == "weighted"))
            for size in map(int, given.problems.split(",")):
                for target in map(float, given.targets.split(",")):
                    found = []
                    for seed in range(given.draws):
                        rule = LearnedStopping.fit(
                            resampled(pool, size, seed), n=given.n, select=select, target=target,
                            confidence=given.confidence, orders=given.orders,
                        )  # fmt: skip
                        found.append(ground.measure(select, rule))
                    lost, saved = [f[0] for f in found], [f[1] for f in found]
                    kept = float(np.mean(np.array(lost) <= target + 1e-9))
                    print(f"{path.stem[:28]:30}{select:10}{size:8} {target:6}{kept:6.0%}{geometric(saved):7.2f}"
                          f"{np.mean(lost):+9.4f}  {lead[1]:.2f}, {lead[0]:+.4f}", flush=True)  # fmt: skip
                    yield {"pool": path.stem, "select": select, "problems": size, "target": target, "kept": kept,
                           "saved": geometric(saved), "lost": float(np.mean(lost)), "lead_of_3": lead}  # fmt: skip


def resampled(pool: Pool, problems: int, seed: int) -> Pool:
    """Problems drawn from a pool with replacement, each time as a problem of its own."""
    chosen = np.random.default_rng(seed).integers(len(pool.problems), size=problems)
    made = tuple(replace(pool.problems[k], id=f"{i}: {pool.problems[k].id}") for i, k in enumerate(chosen))
    return replace(pool, problems=made)


def _selects(pool: Pool) -> list[Select]:
    answers = any(c.answer is not None for p in pool.problems for c in p.candidates)
    scored = all(c.scored("last") is not None for p in pool.problems for c in p.candidates)
    found: list[Select] = ["majority"] if answers else []
    return found + (["weighted"] if scored and answers else [])


def geometric(values: Sequence[float]) -> float:
    """Their geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


if __name__ == "__main__":
    sys.exit(main())
