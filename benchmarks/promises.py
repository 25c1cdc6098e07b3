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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import write_json
from benchmarks._pools.drawn import AS_RECORDED, KINDS, VOTES, Population, draw
from benchmarks._pools.ground import Ground, fitted, geometric
from benchmarks._pools.procedures import compared
from benchmarks._pools.recorded_promises import from_recorded
from benchmarks._pools.shipped import on_recorded
from tts_plugins.metrics import clustered_bootstrap, wilson
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.policies._calibration.replayed_trials import Sampling
from tts_plugins.policies._stopping.threshold_rules import ladders
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
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
    parser.add_argument("--as-recorded", action="store_true", help="only kinds with the moments of recorded pools")
    parser.add_argument("--n", type=int, default=40, metavar="N", help="candidates of a problem")
    parser.add_argument("--orders", type=int, default=40, metavar="N", help="walks through each problem in a fit")
    parser.add_argument("--shipped", type=Path, nargs="+", metavar="DIR", help="the shipped rules on the pools there")
    parser.add_argument("--calibrate", action="store_true", help="fit by `calibrate`, with its way to choose")
    parser.add_argument("--recorded", type=Path, metavar="DIR", help="problems drawn from the recorded pools there")
    parser.add_argument("--procedures", action="store_true", help="other procedures beside the one that is built")
    parser.add_argument("--short", action="store_true", help="a few draws, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    if given.short:
        given.draws, given.problems, given.targets, given.n = 3, "60", "0.05", 16
    if given.as_recorded:
        given.kind = list(AS_RECORDED)
    if given.recorded:
        rows = list(from_recorded(given))
    elif given.procedures:
        cells = [(60, 0.01), (60, 0.05), (150, 0.01), (500, 0.01), (500, 0.05)]
        kinds: Sequence[str] = given.kind or VOTES
        rows = list(compared(kinds, cells[:1] if given.short else cells, given.draws, given.n, given.confidence,
                             10_000 if given.short else 60_000))  # fmt: skip
    else:
        rows = list(on_recorded(given.shipped) if given.shipped else _on_drawn(given))
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
            for words, kinds in _GROUPS.items():
                some = [row for row in rows if row["kind"] in kinds]
                if some:
                    limits = [_limit(grounds[row["kind"]], KINDS[row["kind"]].select, given.n, target) for row in some]
                    _tell(words, some, None if given.calibrate else geometric(limits))
            yield from rows
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)


_GROUPS = {
    "votes": VOTES,
    "votes, as recorded pools": AS_RECORDED,
    "scored": tuple(name for name, kind in KINDS.items() if kind.select != "majority"),
}


def _tell(words: str, rows: Sequence[Row], limit: float | None) -> None:
    """Print what holds for a group of kinds."""
    worst = min(rows, key=lambda row: row["kept"])
    low, high = worst["kept_interval"]
    saved = geometric([row["saved"] for row in rows])
    intervals = [row["saved_interval"] for row in rows]
    apart = " to ".join(f"{geometric([interval[end] for interval in intervals]):.2f}" for end in (0, 1))
    bound = "" if limit is None else f"; {limit:.2f} by the ladders in hindsight"
    if any(row["vote_lead_3"] for row in rows):
        print(_beside_a_lead(rows))
    print(f"{worst['problems']:8} {worst['target']:6}  {words}: kept {worst['kept']:.1%} ({low:.1%} to "
          f"{high:.1%}) in the worst ({worst['kind']}); saved {saved:.2f} times ({apart}){bound}",
          flush=True)  # fmt: skip


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
            for target, rule in fitted(pool, KINDS[name].select, targets, **_fit(given)):
                found[target].append(ground.measure(KINDS[name].select, rule))
    lead = LearnedStopping(n=given.n, select="majority", enough=3)
    beside = ground.measure("majority", lead) if KINDS[name].select == "majority" else None
    for target, results in found.items():
        lost = [result[0] for result in results]
        kept = sum(each <= target + 1e-9 for each in lost)
        saved = clustered_bootstrap([[float(np.log(result[1]))] for result in results])
        yield {
            "kind": name, "problems": size, "target": target, "kept": kept / len(lost),
            "kept_interval": wilson(kept, len(lost)), "saved": float(np.exp(saved.value)),
            "saved_interval": (float(np.exp(saved.low)), float(np.exp(saved.high))), "lost": float(np.mean(lost)),
            "most lost": max(lost), "vote_lead_3": beside,
        }  # fmt: skip


def _fit(given: argparse.Namespace) -> dict[str, Any]:
    return {"n": given.n, "orders": given.orders, "confidence": given.confidence}


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


if __name__ == "__main__":
    sys.exit(main())
