"""Verifiers, measured: `python -m benchmarks.verifiers [--pools DIR] [--only pools,attacks] [--live [N]]`.

Process scores over recorded pools (AUC, best-of-N and weighted accuracy by aggregation, with intervals), and the
table of attacks on judges: scripted ones that obey what they read, and with `--live` the embedded model.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks._files import write_json
from benchmarks._pools.attack_table import live, scripted
from benchmarks._pools.pool_table import pools
from benchmarks._rows import Row, table

POOLS = Path(__file__).parents[1].parent / "shared" / "pools"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 where a row that must be met is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verifiers", description=__doc__)
    parser.add_argument("--pools", type=Path, default=POOLS, metavar="DIR", help="recorded pools (../shared/pools)")
    parser.add_argument("--only", default="pools,attacks", metavar="PARTS", help="pools, attacks, or both")
    parser.add_argument(
        "--live", nargs="?", type=int, const=99, default=0, metavar="N", help="N families, embedded model"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    parts = given.only.split(",")
    if "pools" in parts and not given.pools.is_dir():
        parser.error(f"--pools {given.pools} is not a folder; the pools are not part of this repository")
    rows: list[Row] = list(pools(given.pools)) if "pools" in parts else []
    if "attacks" in parts:
        rows += asyncio.run(scripted())
    if given.live:
        rows += _live(given.live)
    print(table(rows))
    if given.json:
        write_json(given.json, [row.to_dict() for row in rows])
    return 0 if all(row.met is not False for row in rows) else 1


def _live(limit: int) -> list[Row]:
    from tts_plugins.models import LocalModel

    with LocalModel(temperature=0, max_tokens=200, slots=1, context=4096) as model:
        return asyncio.run(live(model, limit))


if __name__ == "__main__":
    sys.exit(main())
