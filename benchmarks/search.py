"""Search and revision: `python -m benchmarks.search [--short] [--live [--task NAME] | --prompt] [--pools DIR]`.

The calls that each algorithm makes, the wall time beside the same requests bare, weighted selection beside naive on
recorded beams, and with --live the embedded model on tasks that a program checks, at equal tokens. With --prompt, the
embedded model and two wordings of the prompt that asks for one step.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from benchmarks._pools.beams import by_choice
from benchmarks._rows import Row, table
from benchmarks._serving.search_live import TASKS, live
from benchmarks._serving.search_wall_time import calls, wall
from benchmarks._serving.step_prompt import step_prompt
from tts_plugins.pools import Pool

RECORDED = {"weighted": 0.630, "best by score": 0.558}


def selection(folder: Path) -> list[Row]:
    """Sixteen recorded beams: the sum over equal answers beside the single best score."""
    pool = Pool.read(folder / "math_beam16_prm_llama32_3b.jsonl.gz")
    found = [by_choice(problem) for problem in pool.problems]
    rows = []
    for way, expected in RECORDED.items():
        value = sum(row[way] for row in found) / len(found)
        rows.append(
            Row(
                number=3, what=f"math_beam16, {len(found)} problems, aggregate last: {way}", must=f"{expected:.3f}",
                ours=f"{value:.3f}", met=round(value, 3) == expected,
            )
        )  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument("--live", action="store_true", help="the embedded model, for several minutes, and nothing else")
    parser.add_argument("--prompt", action="store_true", help="two wordings of the prompt for one step, nothing else")
    parser.add_argument("--problems", type=int, default=24, help="problems of each live task, or for the prompt")
    parser.add_argument(
        "--task", action="append", choices=sorted(TASKS), metavar="NAME",
        help=f"a live task to run, may be given again: {', '.join(f'{k} ({t.name})' for k, t in TASKS.items())}",
    )  # fmt: skip
    parser.add_argument("--pools", type=Path, default=Path("../shared/pools"), metavar="DIR")
    given = parser.parse_args(arguments)
    if given.live:
        asyncio.run(live(2 if given.short else given.problems, given.task or list(TASKS)))
        return 0
    if given.prompt:
        asyncio.run(step_prompt(2 if given.short else given.problems))
        return 0
    rows = asyncio.run(calls()) + asyncio.run(wall(given.short))
    if given.pools.is_dir():
        rows += selection(given.pools)
    else:
        print(f"{given.pools} is not there: the recorded beams are left out (--pools DIR)", file=sys.stderr)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians (quartiles)\n")
    print(table(rows))
    return 0 if given.short or all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
