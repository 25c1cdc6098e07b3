"""What the server must reach, measured: `python -m benchmarks.server [--short] [--only 1,5] [--json FILE]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping

from benchmarks._files import write_json
from benchmarks._rows import Row, table
from benchmarks._server.crowds import best_of_four, disconnects, leaks, one_budget
from benchmarks._server.latency import latency
from benchmarks._server.pages import hostile, refused, scrolling

Section = Callable[[bool], Awaitable[list[Row]]]
SECTIONS: Mapping[int, Section] = {
    1: latency, 3: best_of_four, 4: one_budget, 5: leaks, 6: disconnects, 7: refused, 8: hostile, 9: scrolling,
}  # fmt: skip
# A figure of these says something on a busy machine, too.
_ALWAYS = {3, 4, 6, 7, 8}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row is not met (with --short, a row that no busy machine can move)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes, in two minutes; timings mean little")
    parser.add_argument("--only", type=_numbers, default=list(SECTIONS), metavar="ROWS", help="such as 1,5")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for number in given.only:
        start = time.perf_counter()
        rows += asyncio.run(_section(number, given.short))
        print(f"section {number}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}\n")
    print(table(rows))
    if given.json:
        write_json(given.json, {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]})
    missed = [r for r in rows if r.met is False and (not given.short or r.number in _ALWAYS - {6})]
    return 1 if missed else 0


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if not set(found) <= set(SECTIONS):
        raise argparse.ArgumentTypeError(f"{text!r}: rows are {', '.join(map(str, SECTIONS))}")
    return found


async def _section(number: int, short: bool) -> list[Row]:
    return await SECTIONS[number](short)


if __name__ == "__main__":
    sys.exit(main())
