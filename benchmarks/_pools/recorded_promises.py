"""Promises on recorded pools: the rules that ship, and fits to problems that are drawn from a pool."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks._pools.ground import Ground, fitted, geometric
from benchmarks._pools.shipped_pairs import Found, measured, tell
from tts_plugins.policies import LearnedStopping
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.stopping import ShippedRule, shipped_rule

Row = dict[str, Any]


def on_recorded(folder: Path) -> Iterator[Row]:
    """The shipped rules in their own waves, on every recorded pool that has answers and enough candidates."""
    print(f"{'pool':32}{'choice':10}{'n':>3}  {'rule':9}{'samples':>8}{'tokens':>8}{'rounds':>8}{'lost':>9}")
    found, known, pairs = list[Row](), set[int](), dict[tuple[int, Select], dict[str, Found]]()
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
                pairs.setdefault((n, select), {})[path.name.split(".")[0]] = measured(_with_tokens(pool), n, select)
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
    for (n, select), of_pools in sorted(pairs.items()):
        tell(of_pools, f"n={n}, {select}")


def _counted(pool: Pool) -> bool:
    return all(c.tokens is not None for p in pool.problems for c in p.candidates)


def _with_tokens(pool: Pool) -> Pool:
    """The pool itself, or with a token for each candidate where none were counted: tokens are samples then."""
    if _counted(pool):
        return pool
    made = (replace(p, candidates=tuple(replace(c, tokens=1) for c in p.candidates)) for p in pool.problems)
    return replace(pool, problems=tuple(made))


def from_recorded(given: argparse.Namespace) -> Iterator[Row]:
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
                    for target, rule in fitted(
                        resampled(pool, size, seed),
                        select,
                        targets,
                        n=given.n,
                        orders=given.orders,
                        confidence=given.confidence,
                    ):
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
