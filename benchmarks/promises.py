"""How often a target of accuracy is kept on problems that the fit has not seen: `python -m benchmarks.promises`.

Pools are drawn anew, fitted to, and the rule is run on one large pool of the same kind. The loss there is all but the
true one; a promise with 90 % confidence may be broken one time in ten.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._files import write_json
from tts_plugins.policies import LearnedStopping, calibrate
from tts_plugins.policies._calibration.options import sampling
from tts_plugins.policies._calibration.replayed_trials import Sampling, Trials
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.testing.synthetic import synthetic_pool

N = 16
KINDS: dict[str, Select] = {"votes": "majority", "scores": "weighted", "exact checks": "best"}


def main(arguments: list[str] | None = None) -> int:
    """Print, for each kind of pool and each promise, how often it was kept and what was saved."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__)
    parser.add_argument("--pools", type=int, default=20, metavar="N", help="pools drawn of each kind")
    parser.add_argument("--problems", type=int, default=60, metavar="N", help="of each pool")
    parser.add_argument("--targets", default="0.01,0.02,0.05", metavar="X,X,…", help="most accuracy to lose")
    parser.add_argument("--confidences", default="0.5,0.9", metavar="X,X,…", help="with which they are kept")
    parser.add_argument("--kind", choices=list(KINDS), help="of pools; all if left out")
    parser.add_argument("--policies", action="store_true", help="ComputeOptimal too, which takes longer")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows = []
    for kind, select in ((k, s) for k, s in KINDS.items() if not given.kind or k == given.kind):
        start = time.perf_counter()
        ground = _Ground(kind, select)
        pools = [_drawn(kind, given.problems, 1000 + i) for i in range(given.pools)]
        fits: dict[str, Callable[..., Sampling]] = {"LearnedStopping": _rule}
        if given.policies:
            fits["ComputeOptimal"] = _policy
        for name, fit in fits.items():
            for confidence in map(float, given.confidences.split(",")):
                for target in map(float, given.targets.split(",")):
                    found = [ground.measure(name, fit(p, select, target, confidence)) for p in pools]
                    rows.append(_row(kind, name, target, confidence, found))
        print(f"  ({time.perf_counter() - start:.0f} s)", flush=True)
    if given.json:
        write_json(given.json, {"problems": given.problems, "rows": rows})
    return 0


class _Ground:
    """A large pool on which everything is measured, on the same walks."""

    def __init__(self, kind: str, select: Select, problems: int = 600, orders: int = 8) -> None:
        pool = _drawn(kind, problems, 1)
        selects: list[Select] = [select] if kind == "votes" else ["majority", "weighted", "best"]
        self._trials = Trials(pool.problems, N, selects, how="last", orders=orders, seed=3, extra=0.0)
        fulls = {s: self._run(sampling(s, N, None, None)) for s in selects}
        # A rule is held against all samples chosen from as it chooses, a policy against the best way to choose.
        self._full = {"LearnedStopping": fulls[select], "ComputeOptimal": max(fulls.values())}

    def _run(self, strategy: Sampling) -> tuple[float, float]:
        found = self._trials.outcome(strategy, self._trials.stops_at(strategy), 0)
        return float(found.right.mean()), float(found.tokens.mean())

    def measure(self, who: str, strategy: Sampling) -> tuple[float, float]:
        """Accuracy lost to all samples, and how many times fewer tokens it took."""
        right, tokens = self._run(strategy)
        return self._full[who][0] - right, self._full[who][1] / tokens


def _drawn(kind: str, problems: int, seed: int) -> Pool:
    pool = synthetic_pool(problems, N, seed=seed, exact=kind == "exact checks")
    if kind != "votes":
        return pool
    bare = (replace(p, candidates=tuple(replace(c, step_scores=(), score=None) for c in p.candidates))
            for p in pool.problems)  # fmt: skip
    return replace(pool, problems=tuple(bare))


def _rule(pool: Pool, select: Select, target: float, confidence: float) -> Sampling:
    rule = LearnedStopping.fit(pool, n=N, select=select, target=target, confidence=confidence, orders=6)
    return sampling(select, N, rule, 1)


def _policy(pool: Pool, select: Select, target: float, confidence: float) -> Sampling:
    plan = calibrate(pool, budgets=(N,), target=target, confidence=confidence, orders=4).plans[0]
    fixed: Any = plan.fixed  # stages, of which there hardly are any, are left out
    return fixed


def _row(kind: str, name: str, target: float, confidence: float, found: list[tuple[float, float]]) -> dict[str, Any]:
    lost, saved = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    kept = float((lost <= target + 1e-9).mean())
    said = f"lost {lost.mean():+.4f}, at most {lost.max():+.4f}; fixed/it in tokens {saved.mean():.2f}"
    print(f"{kind:13}{name:16} target {target:<5} confidence {confidence:<4} kept {kept:4.0%}; {said}", flush=True)
    return {"kind": kind, "who": name, "target": target, "confidence": confidence, "kept": kept,
            "lost": list(map(float, lost)), "saved": list(map(float, saved))}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
