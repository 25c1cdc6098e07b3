"""What must end, stay flat and lose nothing: `python -m benchmarks.reliability` (2 to 4 minutes on 2 cores).

Every hang is a program in a process of its own with a time limit. Growth is CPU by size, in one process each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._files import write_json
from benchmarks._reliability import faults, growth, half_account, hangs, many_solves
from benchmarks._rows import Row, table

# Each gives its rows, numbered later; `short` only shows that it runs.
PARTS: Sequence[tuple[str, Callable[[bool], list[Row]]]] = (
    ("hangs", hangs.rows),
    ("many", many_solves.rows),
    ("growth", growth.rows),
    ("half", half_account.rows),
    ("faults", faults.rows),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the rows; the status is 1 where one is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    names = [name for name, _ in PARTS]
    parser.add_argument("--only", help=f"some of {', '.join(names)}, with commas between them")
    parser.add_argument("--short", action="store_true", help="seconds; its figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",") if given.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"--only: {min(unknown)!r} is not known; use {', '.join(names)}")
    rows: list[Row] = []
    for name, part in PARTS:
        if name in wanted:
            rows += part(given.short)
    rows = [Row(**{**row.to_dict(), "number": i}) for i, row in enumerate(rows, 1)]
    print(table(rows))
    if given.json:
        write_json(given.json, {"rows": [row.to_dict() for row in rows], "short": given.short})
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
