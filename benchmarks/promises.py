"""How often a promise of accuracy is kept, and what it saves: `python -m benchmarks.promises`.

Pools are drawn anew, a rule is fitted to each, and it is run on one large pool of the same kind (of votes, on 60,000
problems): the loss there is all but the true one. Measured against another small half instead, 13 to 42 % of true
promises look broken. A promise with 90 % confidence may be broken one time in ten. `--shipped DIR` runs the rules that
ship on recorded pools instead, and `--recorded DIR` draws problems from the recorded pools, with replacement, and
measures on all of each pool.
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
from benchmarks._pools.drawn import KINDS, VOTES, Population, draw
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.policies._calibration.options import sampling
from tts_plugins.policies._calibration.replayed_trials import Sampling, Trials, select_of
from tts_plugins.policies._stopping.fitting import Fitter
from tts_plugins.policies._stopping.threshold_rules import ladders
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import Rule, ShippedRule, shipped_rule
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
    grounds = {name: _ground(name, given) for name in names}
    print(f"{'problems':>8} {'target':>6}  {'kind':15}{'kept':>6}{'saved':>7}{'lost':>9}  VoteLead(3) saved, lost")
    for size in sizes:
        start = time.perf_counter()
        found = {(row["kind"], row["target"]): row for name in names
                 for row in _promises(name, grounds[name], size, targets, given)}  # fmt: skip
        for target in targets:
            rows = list[Row]()
            for name in names:
                rows.append(found[name, target])
                print(_line(rows[-1]), flush=True)
            votes = [row for row in rows if row["kind"] in VOTES]
            if votes:
                worst, mean = min(row["kept"] for row in votes), geometric([row["saved"] for row in votes])
                print(_beside_a_lead(votes))
                limits = [_limit(grounds[row["kind"]], "majority", given.n, target) for row in votes]
                print(f"{'':16}in hindsight the boldest rung that loses no more: saved {geometric(limits):.2f} times")
                print(f"{size:8} {target:6}  votes: kept {worst:.1%} in the worst kind; saved {mean:.2f} times")
            yield from rows
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)


def _ground(name: str, given: argparse.Namespace) -> Ground | Population:
    select = KINDS[name].select
    if select == "majority" and not given.calibrate:
        return Population(name, given.n, 10_000 if given.short else 60_000)
    every: tuple[Select, ...] = ("majority", "weighted", "best")
    selects = every if given.calibrate and select != "majority" else [select]
    return Ground(draw(name, 300 if given.short else 6000, given.n, 1), given.n, selects, orders=2)


def _limit(ground: Ground | Population, select: Select, n: int, target: float) -> float:
    """What the cheapest rung of the ladders saves whose true loss is within the target: no fit does better."""
    rules = (LearnedStopping(n=n, select=select, **rule._asdict()) for ladder in ladders(select, n) for rule in ladder)
    return max((saved for lost, saved in (ground.measure(select, rule) for rule in rules) if lost <= target), default=1)


def _promises(
    name: str, ground: Ground | Population, size: int, targets: Sequence[float], given: argparse.Namespace
) -> Iterator[Row]:
    found: dict[float, list[tuple[float, float]]] = {target: [] for target in targets}
    for seed in range(given.draws):
        pool = draw(name, size, given.n, 1000 + seed)
        for target, results in found.items():
            if given.calibrate:
                assert isinstance(ground, Ground)
                results.append(ground.beside_the_best(_calibrated(pool, target, given)))
        if not given.calibrate:
            for target, rule in _fitted(pool, KINDS[name].select, targets, given):
                found[target].append(ground.measure(KINDS[name].select, rule))
    lead = LearnedStopping(n=given.n, select="majority", enough=3)
    beside = ground.measure("majority", lead) if KINDS[name].select == "majority" else None
    for target, results in found.items():
        lost = [result[0] for result in results]
        yield {
            "kind": name, "problems": size, "target": target, "kept": float(np.mean(np.array(lost) <= target + 1e-9)),
            "saved": geometric([result[1] for result in results]), "lost": float(np.mean(lost)),
            "most lost": max(lost), "vote_lead_3": beside,
        }  # fmt: skip


def _fitted(
    pool: Pool, select: Select, targets: Sequence[float], given: argparse.Namespace
) -> Iterator[tuple[float, LearnedStopping]]:
    """What `LearnedStopping.fit` finds for each target, from the same walks."""
    fitter = Fitter(pool.problems, given.n, select, how="last", orders=given.orders, seed=0, extra=0.0)
    for target in targets:
        yield target, LearnedStopping.promised(target, given.confidence, fitter, pool.header)


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

    def __init__(self, pool: Pool, n: int, selects: Sequence[Select], orders: int) -> None:
        self.n = n
        self._trials = Trials(pool.problems, n, selects, how="last", orders=orders, seed=3, extra=0.0)
        self._known: dict[str, tuple[float, float]] = {}

    def measure(self, select: Select, rule: Rule) -> tuple[float, float]:
        """Accuracy lost to all samples chosen from in the same way, and how many times fewer tokens the rule took."""
        full, own = self._run(select, None), self._run(select, rule)
        return full[0] - own[0], full[1] / own[1]

    def shipped(self, select: Select, rule: Rule) -> dict[str, float]:
        """Accuracy lost to all samples; how many times fewer samples and tokens; rounds. In the waves of the rule."""
        full, own = (
            self._trials.outcome(s, self._trials.stops_at(s), 0)
            for s in (sampling(select, self.n, stop, None) for stop in (None, rule))
        )
        return {
            "lost": float(full.right.mean() - own.right.mean()), "rounds": float(own.rounds.mean()),
            "samples": float(full.samples.mean() / own.samples.mean()),
            "tokens": float(full.tokens.mean() / own.tokens.mean()),
        }  # fmt: skip

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
        key = (rule.enough, rule.fade, rule.at_most, rule.weights) if isinstance(rule, LearnedStopping) else rule
        name = f"{select} {key!r}"
        if name not in self._known:
            strategy = sampling(select, self.n, rule, 1)
            found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
            self._known[name] = (float(found.right.mean()), float(found.tokens.mean()))
        return self._known[name]


def _on_recorded(folder: Path) -> Iterator[Row]:
    """The shipped rules in their own waves, on every recorded pool that has answers and enough candidates."""
    print(f"{'pool':32}{'choice':10}{'n':>3}  {'rule':9}{'samples':>8}{'tokens':>8}{'rounds':>8}{'lost':>9}")
    found, known = list[Row](), set[int]()
    for path in sorted(folder.glob("*.jsonl.gz")):
        pool = Pool.read(path)
        if any(c.correct is None for p in pool.problems for c in p.candidates):
            continue
        for select in _selects(pool):
            votes = hash((select, *(c.answer for p in pool.problems for c in p.candidates)))
            if votes in known:
                continue  # the same samples in another pool, which adds scores
            known.add(votes)
            for n in (n for n in (8, 16, 40) if pool.fewest >= n):
                ground = Ground(_with_tokens(pool), n, [select], orders=20)
                for name in get_args(ShippedRule):
                    row = {"pool": path.stem, "select": select, "n": n, "rule": name, "counted": _counted(pool),
                           **ground.shipped(select, shipped_rule(name, n, select))}  # fmt: skip
                    found.append(row)
                    tokens = f"{row['tokens']:8.2f}" if row["counted"] else f"{'-':>8}"
                    print(f"{path.stem[:30]:32}{select:10}{n:3}  {name:9}{row['samples']:8.2f}{tokens}"
                          f"{row['rounds']:8.1f}{row['lost']:+9.4f}", flush=True)  # fmt: skip
    yield from found
    for name in get_args(ShippedRule):
        for n in (8, 16, 40):
            rows = [r for r in found if r["rule"] == name and r["n"] == n]
            for kind, of in (("samples", rows), ("tokens", [r for r in rows if r["counted"]])):
                if of:
                    print(
                        f"{name:9} n={n}: {geometric([r[kind] for r in of]):.2f} times fewer {kind} (geometric mean of "
                        f"{len(of)}), least {min(r[kind] for r in of):.2f}; most lost {max(r['lost'] for r in of):.4f}"
                    )


def _counted(pool: Pool) -> bool:
    return all(c.tokens is not None for p in pool.problems for c in p.candidates)


def _with_tokens(pool: Pool) -> Pool:
    """The pool itself, or with a token for each candidate where none were counted: tokens are samples then."""
    if _counted(pool):
        return pool
    made = (replace(p, candidates=tuple(replace(c, tokens=1) for c in p.candidates)) for p in pool.problems)
    return replace(pool, problems=tuple(made))


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
            lead = ground.measure(select, LearnedStopping(n=given.n, select=select, enough=3))
            targets = [float(x) for x in given.targets.split(",")]
            for size in map(int, given.problems.split(",")):
                found: dict[float, list[tuple[float, float]]] = {target: [] for target in targets}
                for seed in range(given.draws):
                    for target, rule in _fitted(resampled(pool, size, seed), select, targets, given):
                        found[target].append(ground.measure(select, rule))
                for target, results in found.items():
                    lost, saved = [f[0] for f in results], [f[1] for f in results]
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
