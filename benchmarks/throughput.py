"""Many solves at once, measured: `python -m benchmarks.throughput [--short] [--only 1,2,3] [--base DIR] [--json FILE]`.

Sections: 1, the engine alone; 2, requests and searches over HTTP; 3, LangChain and DSPy. Nothing is installed: rows of
other packages (its-hub, LangChain, DSPy) appear where they can be imported.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks._files import write_json
from benchmarks._rows import Row, table
from benchmarks._throughput.engine import engine_rows
from benchmarks._throughput.frameworks import framework_rows
from benchmarks._throughput.wire import wire_rows

Section = Callable[..., list[Row]]  # (short, base)
SECTIONS: Mapping[int, Section] = {1: engine_rows, 2: wire_rows, 3: framework_rows}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument("--only", type=_numbers, default=list(SECTIONS), metavar="ROWS", help="sections, such as 1")
    parser.add_argument("--base", type=Path, metavar="DIR", help="another version's root, measured in turn with this")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    for number in given.only:
        start = time.perf_counter()
        rows += SECTIONS[number](short=given.short, base=given.base)
        print(f"section {number}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}; medians\n")
    print(table(rows))
    if given.json:
        write_json(given.json, {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]})
    return 0 if given.short or all(row.met is not False for row in rows) else 1


def _numbers(text: str) -> list[int]:
    found = [int(part) for part in text.split(",")]
    if not set(found) <= set(SECTIONS):
        raise argparse.ArgumentTypeError(f"{text!r}: sections are {', '.join(map(str, SECTIONS))}")
    return found


if __name__ == "__main__":
    sys.exit(main())
