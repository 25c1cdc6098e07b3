"""What the foundation must reach, measured: `python -m benchmarks.foundation [--short] [--only 1,5] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

from benchmarks._files import write_json
from benchmarks._rows import FULL, SHORT, Row, Sizes, table
from benchmarks._serving.cancellation import cancelled, fits
from benchmarks._serving.latency import cpu, critical, votes, wall
from benchmarks._serving.overhead import local
from benchmarks._serving.shared_budget import crowd

Section = Callable[[Sizes], Awaitable[list[Row]]]
SECTIONS: Mapping[int, Section] = {
    1: wall, 2: critical, 3: votes, 4: crowd, 5: cpu, 6: cancelled, 7: fits, 8: local,
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foundation", description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument(
        "--only", type=_numbers, default=list(SECTIONS), metavar="ROWS", help="rows to measure, such as 1,5"
    )
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for number in given.only:
        start = time.perf_counter()
        rows += asyncio.run(_section(number, SHORT if given.short else FULL))
        print(f"section {number}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}; medians (quartiles)\n")
    print(table(rows))
    if given.json:
        reported = {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]}
        write_json(given.json, reported)
    return 0 if given.short or all(row.met is not False for row in rows) else 1


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if not set(found) <= set(SECTIONS):
        raise argparse.ArgumentTypeError(f"{text!r}: rows are {', '.join(map(str, SECTIONS))}")
    return found


async def _section(number: int, sizes: Sizes) -> list[Row]:
    return await SECTIONS[number](sizes)


if __name__ == "__main__":
    sys.exit(main())
