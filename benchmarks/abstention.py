"""How often a threshold for abstention keeps its promise, and how much is answered: `python -m benchmarks.abstention`.

Thresholds are fitted to draws of problems, and judged on the population that these were drawn from: for the synthetic
kinds 6,000 other problems, for recorded pools the pool itself, from which the problems are drawn with replacement
(bootstrap). "Kept": of the answered questions of the population, at most the allowed share is wrong, or nothing is
answered. A promise with 90 % confidence may be broken one time in ten. `--calibrate` draws pools for `calibrate`, which
chooses a plan on one half and fits its threshold to the other, and judges the two together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import write_json
from benchmarks._pools.drawn import KINDS, draw
from benchmarks._pools.recorded_promises import resampled
from tts_plugins.metrics import clustered_bootstrap, wilson
from tts_plugins.policies import Abstention, calibrate
from tts_plugins.policies._calibration.replayed_trials import Trials
from tts_plugins.policies.abstention import choices_of
from tts_plugins.pools import Pool
from tts_plugins.selection import Select

Row = dict[str, Any]
Cases = tuple[Any, Any]  # confidences and grades, an array each
_RECORDED: dict[str, tuple[Select, ...]] = {
    "math_llama31_8b_prm_resampled": ("weighted", "majority", "best"), "math_llama31_8b": ("majority",),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print how often thresholds kept their promise, and the share of questions that they answer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.abstention", description=__doc__)
    parser.add_argument("--pools", type=Path, default=Path("../shared/pools"), metavar="DIR", help="recorded pools")
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="draws of problems for each row")
    parser.add_argument("--problems", default="50,100,200,500", metavar="N,N,…", help="of each draw")
    parser.add_argument("--risks", default="0.05,0.1", metavar="X,X,…", help="allowed share of wrong answers")
    parser.add_argument("--confidence", type=float, default=0.9, metavar="X", help="of the promise")
    parser.add_argument("--n", type=int, default=40, metavar="N", help="candidates of a problem")
    parser.add_argument("--calibrate", action="store_true", help="thresholds of `calibrate`, with the plan it chooses")
    parser.add_argument("--short", action="store_true", help="a few draws, to see that it works")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    if given.short:
        given.draws, given.problems, given.n = 5, "50", 8
    print(f"{'questions':44}{'problems':>9}{'risk':>6}  {'kept':24}{'answered':26}{'limit':>6}")
    rows = list(_calibrated(given) if given.calibrate else _rows(given))
    for risk in sorted({row["risk"] for row in rows}):
        worst = min((row for row in rows if row["risk"] == risk), key=lambda row: row["kept"])
        print(f"risk {risk}: kept {worst['kept']:.1%} in the worst row ({worst['questions']}, {worst['problems']})")
    if given.json:
        write_json(given.json, {"rows": rows})
    return 0


def _rows(given: argparse.Namespace) -> Iterator[Row]:
    for name in KINDS:
        pool = draw(name, 300 if given.short else 6000, given.n, 1)
        yield from _measured(name, cases(pool, given.n, KINDS[name].select, orders=1), given)
    for name, selects in _RECORDED.items():
        path = given.pools / f"{name}.jsonl.gz"
        if not path.is_file():
            print(f"{name}: not in {given.pools}, left out")
            continue
        pool = Pool.read(path)
        for select in selects:
            found = cases(pool, min(given.n, pool.fewest), select, orders=3 if given.short else 60)
            yield from _measured(f"{name}, {select}", found, given)


def _calibrated(given: argparse.Namespace) -> Iterator[Row]:
    """How often the thresholds of `calibrate` keep their promise, each with the plan that it chose."""
    grounds = {name: draw(name, 200 if given.short else 2000, given.n, 1) for name in KINDS}
    path = given.pools / "math_llama31_8b_prm_resampled.jsonl.gz"
    if path.is_file():
        grounds[path.name.split(".")[0]] = Pool.read(path)
    for name, ground in grounds.items():
        known: dict[str, Cases] = {}
        for size in (int(x) for x in given.problems.split(",")):
            for risk in (float(x) for x in given.risks.split(",")):
                found = list[tuple[Abstention, Cases]]()
                for seed in range(given.draws):
                    pool = draw(name, size, given.n, 1000 + seed) if name in KINDS else resampled(ground, size, seed)
                    policy = calibrate(
                        pool, budgets=(given.n,), abstain_risk=risk, confidence=given.confidence, orders=2, wave=1,
                        aggregate="last",
                    )  # fmt: skip
                    (plan,) = policy.plans
                    assert plan.abstain is not None
                    key = repr(plan.fixed)
                    if key not in known:
                        known[key] = tuple(map(np.array, choices_of(ground, policy)))  # type: ignore[assignment]
                    found.append((plan.abstain, known[key]))
                yield _row(name, size, risk, found)


def cases(pool: Pool, n: int, select: Select, orders: int) -> Cases:
    """Return how sure the choice among `n` samples is and whether it is right, for some orders of each problem."""
    trials = Trials(pool.problems, n, [select], how="last", orders=orders, seed=3, extra=0.0)
    first = trials.paths[select].state.first[:, n - 1]
    return (first if select == "best" else first / n), trials._right[select][:, n - 1].astype(bool)


def _measured(name: str, population: Cases, given: argparse.Namespace) -> Iterator[Row]:
    confidences, right = population
    for size in (int(x) for x in given.problems.split(",")):
        for risk in (float(x) for x in given.risks.split(",")):
            found = list[tuple[Abstention, Cases]]()
            for seed in range(given.draws):
                drawn = np.random.default_rng(seed).integers(len(right), size=size)
                fitted = Abstention.fit(
                    list(map(float, confidences[drawn])), list(map(bool, right[drawn])), risk=risk,
                    confidence=given.confidence,
                )  # fmt: skip
                found.append((fitted, population))
            yield _row(name, size, risk, found)


def _row(name: str, size: int, risk: float, found: Sequence[tuple[Abstention, Cases]]) -> Row:
    """Judge thresholds, each on the confidences and grades of its population."""
    kept, answered = list[bool](), list[float]()
    for threshold, (confidences, right) in found:
        given_out = confidences.astype(float) >= (2.0 if threshold.below is None else threshold.below)
        answered.append(float(given_out.mean()))
        kept.append(not given_out.any() or float((~right[given_out]).mean()) <= risk)
    share = clustered_bootstrap([[a] for a in answered])
    row = {
        "questions": name, "problems": size, "risk": risk, "kept": sum(kept) / len(kept),
        "kept_interval": wilson(sum(kept), len(kept)), "limit": _limit(*found[0][1], risk), "answered": share,
    }  # fmt: skip
    print(_line(row), flush=True)
    return {**row, "answered": share.value, "answered_interval": (share.low, share.high)}


def _limit(confidences: Any, right: Any, risk: float) -> float:
    """Return the most that could be answered at this risk if the population were known."""
    order = np.argsort(-confidences, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(right) + 1)
    last = np.append(confidences[order][1:] != confidences[order][:-1], True)
    within = np.nonzero((wrong <= risk) & last)[0]
    return 0.0 if not len(within) else float(within.max() + 1) / len(right)


def _line(row: Row) -> str:
    low, high = row["kept_interval"]
    kept = f"{row['kept']:.3f} ({low:.3f} to {high:.3f})"
    return (
        f"{row['questions']:44}{row['problems']:9}{row['risk']:6}  {kept:24}{row['answered']!s:26}{row['limit']:6.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
