"""Programs run as a verifier: `python -m benchmarks.code_tests [--short] [--pools DIR] [--cache FILE] [--problems N]`.

The sandbox: hostile actions under each kind that this machine offers, and the time of a warm check. HumanEval with
samples of CodeGen-16B: what best-of-k gains by docstring examples, by dual agreement (CodeT) and by both, against
random choice, votes of identical programs, and the oracle; and what the running costs. With `--cache` it resumes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks._files import write_json
from benchmarks._pools.humaneval import humaneval
from benchmarks._pools.sandbox_table import sandboxes
from benchmarks._rows import Row, table

POOLS = Path(__file__).parents[1].parent / "shared" / "pools"
POOL = "humaneval_codegen16b.jsonl.gz"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 where a row that must be met is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.code_tests", description=__doc__)
    parser.add_argument("--pools", type=Path, default=POOLS, metavar="DIR", help="recorded pools (../shared/pools)")
    parser.add_argument("--only", default="sandbox,humaneval", metavar="PARTS", help="sandbox, humaneval, or both")
    parser.add_argument("--problems", type=int, metavar="N", help="the first N problems only")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="outcomes so far; read at the start, and added to")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="warm processes (2)")
    parser.add_argument("--short", action="store_true", help="three problems and few draws: it only shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    parts, rows = given.only.split(","), list[Row]()
    if unknown := set(parts) - {"sandbox", "humaneval"}:
        parser.error(f"--only {sorted(unknown)[0]} is not known; use sandbox, humaneval, or both")
    if "sandbox" in parts:
        rows += asyncio.run(sandboxes(checks=20 if given.short else 200))
    if "humaneval" in parts:
        pool = given.pools / POOL
        if pool.is_file():
            problems = 3 if given.short else given.problems
            rows += asyncio.run(humaneval(pool, given.cache, problems, given.workers, draws=4 if given.short else 50))
        elif not given.short:
            parser.error(f"--pools {given.pools} has no {POOL}; the pools are not part of this repository")
    print(table(rows))
    if given.json:
        write_json(given.json, [row.to_dict() for row in rows])
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
