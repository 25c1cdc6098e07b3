"""Promises on recorded pools: fits to problems that are drawn from a pool."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._pools.ground import Ground, fitted, geometric
from benchmarks._pools.shipped import selects
from tts_plugins.policies import LearnedStopping
from tts_plugins.pools import Pool

Row = dict[str, Any]


def from_recorded(given: argparse.Namespace) -> Iterator[Row]:
    """Fits to problems drawn from each recorded pool, beside a lead of three that nobody tuned."""
    head = f"{'pool':30}{'choice':10}{'problems':>8} {'target':>6}{'kept':>6}{'saved':>7}{'lost':>9}"
    print(f"{head}  lead of 3: saved, lost")
    for path in sorted(given.recorded.glob("*.jsonl.gz")):
        pool = Pool.read(path)
        if pool.fewest < given.n or any(c.correct is None or c.tokens is None for p in pool.problems
                                        for c in p.candidates):  # fmt: skip
            continue
        for select in selects(pool):
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
