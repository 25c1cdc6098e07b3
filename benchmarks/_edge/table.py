"""What each way reached and took, beside the larger model's one greedy answer on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._edge.arms import ARMS
from tts_plugins.metrics import clustered_bootstrap, paired_bootstrap

BASE = "large, greedy"


def show(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, over the problems that every way has solved."""
    by_arm = {arm.name: {line["problem"]: line for line in lines if line["arm"] == arm.name} for arm in ARMS}
    by_arm = {name: found for name, found in by_arm.items() if found}
    shared = sorted(set.intersection(*(set(found) for found in by_arm.values()))) if by_arm else []
    if not shared or BASE not in by_arm:
        print("no problem has been solved in every way yet, the larger model's greedy answer included")
        return
    base = [by_arm[BASE][p] for p in shared]
    print(f"{len(shared)} problems; paired with {BASE!r}, 95 % intervals over problems")
    print(f"{'':32}{'right':24}{'more right':26}{'FLOPs / large greedy':26}{'s':>7}{'J':>8}{'passed':>8}{'calls':>7}")
    for name, found in by_arm.items():
        own = [found[p] for p in shared]
        right = clustered_bootstrap([[float(line["right"])] for line in own])
        more = paired_bootstrap([[float(line["right"])] for line in own], [[float(line["right"])] for line in base])
        cost = paired_bootstrap([[line["flops"]] for line in own], [[line["flops"]] for line in base], ratio=True)
        joules = [line["joules"] for line in own]
        energy = "-" if None in joules else f"{_mean(joules):.1f}"
        seconds, passed, calls = (_mean([line[key] for line in own]) for key in ("seconds", "passed", "calls"))
        failed = sum(bool(line["error"]) for line in own)
        print(f"{name:32}{right!s:24}{more!s:26}{cost!s:26}{seconds:7.2f}{energy:>8}{passed:8.2f}{calls:7.1f}"
              + (f"  {failed} failed" if failed else ""))  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
