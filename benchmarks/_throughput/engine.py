"""Rows of the engine alone: CPU where model and verifier take no time, beside another tree where one is given."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks._rows import Row

PROBE = Path(__file__).with_name("engine_probe.py")
HERE = Path(__file__).parents[2]
Figures = Mapping[str, Sequence[float]]


def engine_rows(*, short: bool = False, base: Path | None = None) -> list[Row]:
    """Measure this tree, and `base` where one is given, in turn and in processes of their own.

    Args:
        short: tiny sizes, to see that it runs.
        base: the root of another version of this package.
    """
    trees = {"ours": HERE, **({} if base is None else {"base": base})}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in trees}
    for _ in range(1 if short else 5):
        for name, tree in trees.items():
            for key, value in _probe(tree, 0.02 if short else 1.0).items():
                found[name].setdefault(key, []).append(value)
    ours, theirs = found["ours"], found.get("base")
    return [
        _under(ours, theirs, "n=1", "ms", 0.22, "CPU of a solve, n=1"),
        _under(ours, theirs, "n=8", "ms", 0.9, "CPU of a solve, n=8 with verifier and budget"),
        _halved(ours, theirs),
        _flat(ours, theirs, "100 at once", "3000 at once", "ms", "CPU a solve of n=4, 100 and 3000 at once"),
        _replays(ours, theirs),
        _flat(ours, theirs, "candidate, n=10", "candidate, n=1000", "us", "CPU a candidate, n = 10 and 1000"),
        _flat(ours, theirs, "candidate, n=10", "candidate, n=10000", "us", "CPU a candidate, n = 10 and 10000"),
        _under(
            ours,
            theirs,
            "stall",
            "ms",
            20.0,
            "longest stall of the loop at n=4096, as CPU time of its thread",
            take=max,
        ),
    ]


def _probe(tree: Path, scale: float) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, str(PROBE), str(scale)]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, timeout=600, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _row(what: str, must: str, met: bool | None, ours: str, base: str | None, figures: Figures) -> Row:
    reported = ours if base is None else f"{ours}; before {base}"
    return Row(number=1, what=f"engine alone: {what}", must=must, met=met, ours=reported, figures=dict(figures))


def _under(
    ours: Figures, base: Figures | None, key: str, unit: str, most: float, what: str,
    take: Callable[[Sequence[float]], float] = statistics.median,
) -> Row:  # fmt: skip
    mine = take(ours[key])
    before = None if base is None else f"{take(base[key]):.2f}"
    return _row(what, f"<= {most:g} {unit}", mine <= most, f"{mine:.2f} {unit}", before, {key: ours[key]})


def _halved(ours: Figures, base: Figures | None) -> Row:
    key = "1000 at once"
    mine, theirs = statistics.median(ours[key]), None if base is None else statistics.median(base[key])
    what = "CPU a solve of n=4, 1000 at once on one ledger"
    if theirs is None:
        return _row(what, "", None, f"{mine:.2f} ms", None, {key: ours[key]})
    return _row(what, "<= 0.5 of before", mine <= 0.5 * theirs, f"{mine:.2f} ms", f"{theirs:.2f}", {key: ours[key]})


def _flat(ours: Figures, base: Figures | None, few: str, many: str, unit: str, what: str) -> Row:
    def said(figures: Figures) -> tuple[float, str]:
        low, high = statistics.median(figures[few]), statistics.median(figures[many])
        return high / low, f"{low:.3g} and {high:.3g} {unit}, {high / low:.2f} times"

    ratio, mine = said(ours)
    before = None if base is None else said(base)[1]
    return _row(what, "<= 1.2 times", ratio <= 1.2, mine, before, {few: ours[few], many: ours[many]})


def _replays(ours: Figures, base: Figures | None) -> Row:
    mine = 1e3 / statistics.median(ours["replay"])
    before = None if base is None else f"{1e3 / statistics.median(base['replay']):.0f}"
    what = "replays of 16 candidates a CPU second"
    return _row(what, ">= 1500", mine >= 1500, f"{mine:.0f}", before, {"replay": ours["replay"]})
