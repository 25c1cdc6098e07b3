"""A small model, then a larger one, on recorded pools of both: `python -m benchmarks.two_models [--pools DIR]`.

Llama-3.2-3B and Llama-3.1-8B answered the same 500 problems once, and one process reward model scored both. A token of
the larger one costs 8 / 3 of the smaller one's, as its parameters do; the verifier's work is not counted. A policy is
fitted to one half of the problems and run on the other, through the engine, and swapped. `--shipped` runs ladders that
nobody fitted instead, with the thresholds that ship: some answers first, and the last rung where they disagree.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks._files import write_json
from tts_plugins import BestOfN, ComputeOptimal, SelfConsistency, solve
from tts_plugins.metrics import Estimate, clustered_bootstrap, paired_bootstrap
from tts_plugins.models.replay import ReplayModel, recorded_answer
from tts_plugins.policies import Ladder, Plan, Rung, calibrate
from tts_plugins.policies._calibration.calibration import Calibration
from tts_plugins.policies._calibration.larger_model import LargerPool
from tts_plugins.policies._calibration.selection import cascades
from tts_plugins.policies._calibration.table import follow, value
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.stopping import ShippedRule
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.verifiers.recorded import RecordedVerifier

PRICES = (1e-6, 3e-6, 1e-5, 3e-5)  # of a token of the smaller model, in accuracy


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two pools over the same problems, what the larger one's token costs, and samples of both at most."""

    name: str
    small: Pool
    large: Pool
    price: float
    budget: int


Outcome = tuple[list[float], list[float], list[float]]  # a problem: right, cost, whether the larger one was asked


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 where there are no pools."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_models", description=__doc__)
    parser.add_argument("--pools", default="../shared/pools", metavar="DIR", help="where the recorded samples lie")
    parser.add_argument("--shipped", action="store_true", help="the shipped thresholds of a ladder, on all pools")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    folder = Path(given.pools)
    if not folder.is_dir():
        print(f"no folder {folder}; give the recorded samples' place with --pools DIR", file=sys.stderr)
        return 1
    reported = _shipped(folder) if given.shipped else {case.name: study(case) for case in _cases(folder)}
    if given.json:
        write_json(given.json, reported)
    return 0


def _cases(folder: Path) -> list[Case]:
    small, large = (Pool.read(folder / f"math_single_prm_llama{name}.jsonl.gz") for name in ("32_3b", "31_8b"))
    return [
        Case(name="recorded: 3B, then 8B", small=small, large=large, price=8 / 3, budget=2),
        Case(
            name="synthetic: one, then one 20 times dearer", price=20, budget=8,
            small=synthetic_pool(300, 4, seed=5), large=synthetic_pool(300, 4, seed=5, strength=12),
        ),
    ]  # fmt: skip


def _shipped(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Print what ladders reach with each shipped threshold, beside their last rung alone; their figures."""
    pools = {
        name: Pool.read(folder / f"{name}.jsonl.gz")
        for name in ("math_llama31_8b", "game24_gpt4", "math_beam16_prm_llama32_3b", "math_llama31_8b_prm_resampled",
                     "math_single_prm_llama32_3b", "math_single_prm_llama31_8b")
    }  # fmt: skip
    votes, game, beams, scored, *single = pools.values()
    reported = {}
    for k in (3, 4, 5, 8):
        for pool in (votes, game):
            rungs = (Rung(strategy=SelfConsistency(n=k)), Rung(strategy=SelfConsistency(n=40)))
            reported[f"{pool.header.model}: {k} votes, else 40"] = (rungs, pool, None)
        last = Rung(strategy=BestOfN(n=40, select="weighted"), model="larger", price=8 / 3)
        reported[f"3B: {k} beams, else 8B: weighted vote of 40"] = (
            (Rung(strategy=SelfConsistency(n=k)), last),
            beams,
            scored,
        )
    one = (Rung(strategy=BestOfN(n=1)), Rung(strategy=BestOfN(n=1), model="larger", price=8 / 3))
    reported["3B: one, by its score, else 8B: one"] = (one, single[0], single[1])
    return {name: _thresholds(name, *case) for name, case in reported.items()}


def _thresholds(name: str, rungs: Sequence[Rung], small: Pool, large: Pool | None) -> list[dict[str, Any]]:
    asked = {p.id for p in large.problems} if large else {p.id for p in small.problems}
    problems = [p for p in small.problems if p.id in asked]
    alone = _climbed(problems, Ladder(rungs[-1:]), small, large)
    print(f"{name}: the last rung alone {np.mean(alone[0]):.3f}")
    rows = []
    for enough in get_args(ShippedRule):
        signal: Any = "best" if isinstance(rungs[0].strategy, BestOfN) else None
        right, cost = _climbed(problems, Ladder(rungs, enough=enough, signal=signal), small, large)
        lost, saved = paired_bootstrap(alone[0], right), alone[1] / cost
        print(f"    {enough:9} lost {lost.value:+.3f} ({lost.low:+.3f} to {lost.high:+.3f}), {saved:.2f} times fewer",
              flush=True)  # fmt: skip
        rows.append({"enough": enough, "lost": vars(lost), "saved": saved})
    return rows


def _climbed(
    problems: Sequence[PoolProblem], ladder: Ladder, small: Pool, large: Pool | None
) -> tuple[list[list[float]], float]:
    """Return whether each problem was answered rightly, and the cost of all, in the first rung's tokens or samples."""
    orders = range(1 if small.fewest == 1 else _ORDERS)
    found = [[asyncio.run(_solve_once(p, ladder, small, large, seed)) for seed in orders] for p in problems]
    return [[right for right, _ in each] for each in found], sum(cost for each in found for _, cost in each)


_ORDERS = 5


async def _solve_once(
    problem: PoolProblem, ladder: Ladder, small: Pool, large: Pool | None, seed: int
) -> tuple[float, float]:
    counted = all(c.tokens for pool in (small, large) if pool for c in pool.problems[0].candidates)
    models = {"larger": ReplayModel(large, seed=seed)} if large else {}
    prices = {model.name: ladder.rungs[-1].price for model in models.values()}
    result = await solve(
        problem.problem(), model=ReplayModel(small, seed=seed), strategy=ladder.with_models(models), seed=seed,
        verifier=RecordedVerifier() if ladder.needs_scores else None, answer=recorded_answer,
    )  # fmt: skip
    asked = [e for e in result.trace if e["kind"] == "request"]
    cost = sum(prices.get(e["model"], 1.0) * (e["usage"]["completion_tokens"] if counted else e["n"]) for e in asked)
    return float(result.output.correct), cost


def study(case: Case) -> list[dict[str, Any]]:
    """Print what each price's policy reaches beside either model's single answer; its figures."""
    said = f"{len(case.small.problems)} problems, budget {case.budget}, a token of the larger {case.price:.3g}"
    print(f"{case.name}: {said}")
    plain = {
        "smaller, 1": ComputeOptimal(plans=(Plan(budget=1, fixed=SelfConsistency(n=1)),)),
        "larger, 1": ComputeOptimal(
            plans=(Plan(budget=1, fixed=Ladder([Rung(strategy=SelfConsistency(n=1), model="larger")])),)
        ),
    }
    rows = []
    single = {name: _run(case, [policy, policy]) for name, policy in plain.items()}
    for name, outcome in single.items():
        rows.append(_row(name, outcome, 0.0, single))
    for price in PRICES:
        fitted = [_fit(case, i, price) for i in (0, 1)]
        rows.append(_row(f"policy at {price:.0e}", _run(case, fitted), price, single))
        for policy in fitted:
            print(f"    {policy.plans[0].fixed}")
        rows[-1]["limit"] = _limit(case, price)
    return rows


def _limit(case: Case, price: float) -> dict[str, float]:
    """The look that is worth most, chosen on the very problems that it is measured on."""
    larger = LargerPool.beside(case.small, case.large, price=case.price, extra=0.0)
    work = Calibration(case.small, signal=None, bins=2, options=[SelfConsistency(n=k) for k in (1, 2, 4)], measured=(),
                       aggregate="last", orders=2, extra=0.0, wave=1, seed=0, larger=larger)  # fmt: skip
    table = work.table(case.budget)
    found = [follow(table, c) for c in cascades(table, np.ones(len(case.small.problems), dtype=bool))]
    best = max(found, key=lambda o: float(value(o, price).mean()))
    reported = {"accuracy": float(best.right.mean()), "tokens": float(best.tokens.mean())}
    print(f"    in hindsight the best look: right {reported['accuracy']:.3f}, tokens {reported['tokens']:.0f}")
    return reported


def _halves(case: Case) -> Sequence[tuple[Pool, Pool]]:
    parts = case.small.split(2, seed=0)
    large = {p.id: p for p in case.large.problems}
    return [(part, replace(case.large, problems=tuple(large[p.id] for p in part.problems))) for part in parts]


def _fit(case: Case, test: int, price: float) -> ComputeOptimal:
    small, large = _halves(case)[1 - test]
    return calibrate(
        small,
        budgets=(case.budget,),
        price=price,
        larger=large,
        larger_price=case.price,
        orders=4,
        aggregate="last",
        hold_out=0,
    )


def _run(case: Case, fitted: Sequence[ComputeOptimal]) -> Outcome:
    found: Outcome = ([], [], [])
    for (small, large), policy in zip(_halves(case), fitted, strict=True):
        found = tuple(a + b for a, b in zip(found, asyncio.run(_solved(small, large, policy, case.price)), strict=True))  # type: ignore[assignment]
    return found


async def _solved(small: Pool, large: Pool, policy: ComputeOptimal, price: float) -> Outcome:
    second = ReplayModel(large)
    strategy = replace(policy, any_verifier=True).with_larger(second)
    right, cost, asked = list[float](), list[float](), list[float]()
    for p in small.problems:
        result = await solve(p.problem(), model=ReplayModel(small), strategy=strategy, verifier=RecordedVerifier(),
                             answer=recorded_answer, seed=0)  # fmt: skip
        used: dict[bool, float] = {False: 0.0, True: 0.0}
        for event in result.trace:
            if event["kind"] == "request":
                used[event["model"] == second.name] += event["usage"]["completion_tokens"]
        right.append(float(result.output.correct))
        cost.append(used[False] + price * used[True])
        asked.append(float(used[True] > 0))
    return right, cost, asked


def _row(name: str, outcome: Outcome, price: float, single: Mapping[str, Outcome]) -> dict[str, Any]:
    def each(values: Sequence[float]) -> list[list[float]]:
        return [[v] for v in values]

    accuracy, cost = clustered_bootstrap(each(outcome[0])), clustered_bootstrap(each(outcome[1]))
    over: dict[str, Estimate] = {}
    for other, o in single.items():
        worth = [[[r - price * c] for r, c in zip(x[0], x[1], strict=True)] for x in (outcome, o)]
        over[other] = paired_bootstrap(worth[0], worth[1])
    print(f"  {name:18} right {accuracy}, tokens {cost}, larger asked {sum(outcome[2]) / len(outcome[2]):.0%}")
    if price:
        print(
            "    worth over "
            + "; ".join(f"{k}: {e.value:+.4f} ({e.low:+.4f} to {e.high:+.4f})" for k, e in over.items())
        )
    return {"name": name, "accuracy": vars(accuracy), "tokens": vars(cost), "asked": sum(outcome[2]) / len(outcome[2]),
            "price": price, "worth over": {k: vars(e) for k, e in over.items()}}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
