"""ComputeOptimal on recorded pools: fitted to one fold, run on the other, beside what is best for all alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks._pools.frontier import Measured, cheapest, frontier, joined
from tts_plugins.bench import replay
from tts_plugins.metrics import Estimate
from tts_plugins.policies import ComputeOptimal
from tts_plugins.policies._calibration.calibration import Calibration
from tts_plugins.policies._calibration.replayed_trials import Outcome, Trials, select_of
from tts_plugins.policies._calibration.selection import choose
from tts_plugins.policies._calibration.table import Choice, Goal, Option, Table, follow, value
from tts_plugins.policies.difficulty import oracle, quantile_edges
from tts_plugins.pools import Pool
from tts_plugins.verifiers.recorded import RecordedVerifier

PRICES = tuple(10 ** (e / 4) for e in range(-13, -3))  # of a mean candidate, in accuracy
TARGETS = (0.005, 0.01, 0.02)
BINS = 5


@dataclass(frozen=True, kw_only=True)
class Half:
    """One fold: calibrated on the other one, with the same options on walks of this one."""

    calibration: Calibration
    fitted: Table
    table: Table
    test: Pool

    def run(self, choice: Choice) -> Outcome:
        """A choice that was made on the other fold, here."""
        return follow(self.table, choice)

    def simple(self, goal: Goal) -> Choice:
        """The best rule that has learned nothing, for all alike; chosen on the other fold, as ours is."""
        plain = [o for o in self.fitted.options if not _is_learned(o)]
        few = replace(self.fitted, options=plain, counts=(), _outcomes={}, _paid={})
        found = choose(few, np.ones(len(self.calibration.pool.problems), dtype=bool), goal)
        return replace(found, fixed=list(self.fitted.options).index(plain[found.fixed]))


def half(train: Pool, test: Pool, n: int, *, orders: int, seed: int) -> Half:
    """A fold, with the options' learned rules fitted to all of the other fold."""
    calibration = Calibration(
        train, signal=None, bins=3, options=None, measured=(), aggregate="last", orders=min(orders, 10), extra=0.0,
        wave=1, seed=7, price=1e-5,
    )  # fmt: skip
    fitted = calibration.table(n)
    selects = list(fitted.trials.paths)
    trials = Trials(test.problems, n, selects, how="last", orders=orders, seed=seed, extra=0.0)

    def moved(o: Option) -> Option:
        return replace(o, at=trials.stops_at(o.strategy))

    options = [moved(o) for o in fitted.options]
    return Half(calibration=calibration, fitted=fitted, test=test,
                table=replace(fitted, trials=trials, options=options, _eases={}, _outcomes={}, _paid={}))  # fmt: skip


def _is_learned(o: Option) -> bool:
    return o.learned_at is not None


def _measured(name: str, outcomes: Sequence[Outcome], orders: int) -> Measured:
    parts = [Measured(name=name, right=o.right.reshape(-1, orders), samples=o.samples.reshape(-1, orders),
                      tokens=o.tokens.reshape(-1, orders)) for o in outcomes]  # fmt: skip
    return joined(name, parts)


def policies(folds: Sequence[Pool], full: Measured, n: int, *, orders: int) -> dict[str, Any]:
    """Print what the policy reaches for a target, along its frontier, and by difficulty; its figures."""
    halves = [half(folds[1 - i], folds[i], n, orders=orders, seed=100 + i) for i in (0, 1)]
    print("  ComputeOptimal, target = most accuracy to lose; all three chosen on one fold, run on the other")
    out: dict[str, Any] = {"targets": [_target(halves, target, full, orders) for target in TARGETS]}
    lines, fixed, limit = _frontiers(halves, orders)
    print("  tokens of fixed / of each along its frontier, by setting as above (paired)")
    for below in TARGETS:
        kinds = (("ComputeOptimal", lines), ("one for all", fixed), ("limit: best in each oracle bin", limit))
        found = {kind: cheapest(settings, full.accuracy - below) for kind, settings in kinds}
        reported = [f"{kind} {m.saved(full)} at {m.accuracy:.4f}" if m else f"{kind} none" for kind, m in found.items()]
        print(f"  -{below}: {'; '.join(reported)}")
        out.setdefault("frontier", []).append(
            {"below": below, **{k: None if m is None else vars(m.saved(full)) for k, m in found.items()}}
        )
    out["bins"] = _bars(halves, orders)
    out["engine"] = _engine(halves, orders)
    return out


def _target(halves: Sequence[Half], target: float, full: Measured, orders: int) -> dict[str, Any]:
    goal = Goal(target=target)
    chosen = [h.calibration.decide(h.fitted, goal) for h in halves]
    alike = [c.alike for c in chosen]
    rows = {
        "ComputeOptimal": _measured("policy", [h.run(c) for h, c in zip(halves, chosen, strict=True)], orders),
        "best for all alike": _measured("alike", [h.run(c) for h, c in zip(halves, alike, strict=True)], orders),
        "best simple rule": _measured("simple", [h.run(h.simple(goal)) for h in halves], orders),
    }
    reported: dict[str, Any] = {"target": target}
    for name, m in rows.items():
        over, saved = m.over(full), m.saved(full)
        print(f"  {target:<6} {name:20}{m.accuracy:9.4f}{m.samples.mean():8.2f} samples; to fixed {_signed(over)}; "
              f"fixed/it in tokens {saved}")  # fmt: skip
        reported[name] = {"accuracy": m.accuracy, "samples": float(m.samples.mean()), "tokens": m.cost,
                      "over fixed": vars(over), "saved": vars(saved)}  # fmt: skip
    ours, same = rows["ComputeOptimal"], rows["best for all alike"]
    bins = sum(len(c.checkpoints) for c in chosen)
    if bins:
        gain = f"{_signed(ours.over(same))} accuracy, {ours.saved(same)} times fewer tokens"
    else:
        gain = "no gain: no bin parts from the best for all alike in either fold"
    print(
        f"         bins: {gain}; for all alike: {', '.join(_named(h, c) for h, c in zip(halves, chosen, strict=True))}"
    )
    return {**reported, "checkpoints": bins, "bins": gain}


def _named(h: Half, choice: Choice) -> str:
    parts = [h.table.options[choice.fixed].name]
    for point in choice.checkpoints:
        parts += [f"after {point.count} in bin {b + 1} of {point.difficulty.bins} {h.table.options[g.option].name}"
                  for b, g in enumerate(point.gates) if g.option is not None]  # fmt: skip
    return "; ".join(parts)


def _frontiers(halves: Sequence[Half], orders: int) -> tuple[list[Measured], list[Measured], list[Measured]]:
    """Along prices: the policy, its strategy for all alike, and what knows the bins and is chosen on itself."""
    ours, fixed, limit = list[Measured](), list[Measured](), list[Measured]()
    for price in PRICES:
        chosen, alike, best = list[Outcome](), list[Outcome](), list[Outcome]()
        for h in halves:
            goal = Goal(price=price / max(_unit(h), 1e-9))
            choice = h.calibration.decide(h.fitted, goal)
            chosen.append(h.run(choice))
            alike.append(h.run(choice.alike))
            best.append(_oracle(h, choice.price))
        ours.append(_measured(f"policy {price:.2g}", chosen, orders))
        fixed.append(_measured(f"alike {price:.2g}", alike, orders))
        limit.append(_measured(f"limit {price:.2g}", best, orders))
    return frontier(ours), frontier(fixed), frontier(limit)


def _unit(h: Half) -> float:
    tokens = [c.tokens or 0 for p in h.calibration.pool.problems for c in p.candidates]
    return sum(tokens) / len(tokens)


def _oracle(h: Half, price: float) -> Outcome:
    """Each oracle bin's best option, chosen on the very problems that it runs on: nothing that bins do is better."""
    bins = _oracle_bins([oracle(p) for p in h.test.problems])[h.table.trials.problem]
    all_ = [h.table.outcome(i, 0) for i in range(len(h.table.options))]
    found = all_[0]
    for b in range(int(bins.max()) + 1):
        found = found.where(bins == b, max(all_, key=lambda o: float(value(o, price)[bins == b].mean())))
    return found


def _oracle_bins(eases: Sequence[float]) -> Any:
    edges = quantile_edges(eases, BINS)
    return np.array([sum(ease < edge for edge in edges) for ease in eases])


def _bars(halves: Sequence[Half], orders: int) -> dict[str, Any]:
    """The paper's bar chart as a table: accuracy by difficulty bin (oracle, quantiles) and strategy."""
    bins = _oracle_bins([oracle(p) for h in halves for p in h.test.problems])
    sizes = [int((bins == b).sum()) for b in range(int(bins.max()) + 1)]
    rows: dict[str, list[Outcome]] = {}
    n = halves[0].table.trials.n
    for i, option in enumerate(halves[0].table.options):
        s = option.sampling
        if s is not None and s.stop is None and s.n in (1, 4, 16, n) and (s.n > 1 or "1" not in rows):
            rows["1" if s.n == 1 else f"{select_of(s)} of {s.n}"] = [h.table.outcome(i, 0) for h in halves]
    goal = Goal(target=0.01)
    rows["ComputeOptimal, target 0.01"] = [h.run(h.calibration.decide(h.fitted, goal)) for h in halves]
    print(f"  accuracy and (samples) by difficulty, the easiest first; bins of {sizes} problems by pass@1")
    reported: dict[str, Any] = {"sizes": sizes}
    for name, outcomes in rows.items():
        m = _measured(name, outcomes, orders)
        cells = [(float(m.right[bins == b].mean()), float(m.samples[bins == b].mean())) for b in range(len(sizes))]
        print(f"    {name:30}" + "".join(f"{a:7.3f} ({k:4.1f})" for a, k in cells))
        reported[name] = cells
    return reported


def _engine(halves: Sequence[Half], orders: int) -> dict[str, float]:
    """The policy for 0.01 as a user runs it, through the real engine."""
    totals = np.zeros(4)
    for h in halves:
        plan = h.calibration.plan(Goal(target=0.01), h.fitted)
        verifier = RecordedVerifier() if h.calibration.scored else None
        found = asyncio.run(replay(h.test, ComputeOptimal(plans=(plan,)), verifier, orders=min(orders, 5)))
        k = len(found.by_problem)
        totals += np.array([found.accuracy.value * k, found.samples.value * k, found.tokens.value * k, k])
    accuracy, samples, tokens = totals[:3] / totals[3]
    print(f"  engine, target 0.01: accuracy {accuracy:.4f}, samples {samples:.2f}, tokens {tokens:.0f}")
    return {"accuracy": float(accuracy), "samples": float(samples), "tokens": float(tokens)}


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})"
