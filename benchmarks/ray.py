"""`python -m benchmarks.ray`: what Ray costs, and what it keeps when processes are killed.

It needs `pip install 'tts-plugins[ray,testing]'` and no network: Ray runs on this machine. `--short` shows in a minute
or two that it runs; its timings mean nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._rows import Row, table

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    solves: int
    pairs: int
    replays: int
    raced: int
    kills: int
    killed: int
    streamed: int
    messages: int


FULL = Sizes(solves=2000, pairs=5, replays=20_000, raced=2000, kills=10, killed=2000, streamed=100_000, messages=2000)
SHORT = Sizes(solves=60, pairs=1, replays=300, raced=600, kills=1, killed=800, streamed=2000, messages=100)


def rows(sizes: Sizes) -> dict[int, Callable[[], Row]]:
    """What makes each row."""
    from benchmarks._ray import budget, cost, driver, kills

    return {
        1: lambda: cost.cpu_row(sizes.solves, sizes.pairs),
        2: lambda: cost.replay_row(sizes.replays, sizes.pairs),
        3: lambda: cost.data_row(sizes.solves // 4),
        4: lambda: budget.race_row(sizes.raced),
        5: lambda: kills.kills_row(sizes.killed, sizes.kills),
        6: lambda: driver.memory_row(sizes.streamed),
        7: driver.address_row,
        8: lambda: budget.unit_row(sizes.messages),
    }


def start() -> None:
    """Start a small Ray, whose workers import this tree, and have the priority of what they are compared with."""
    for name, value in {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal",
                        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}.items():  # fmt: skip
        os.environ.setdefault(name, value)
    paths = [str(ROOT), str(ROOT / "integrations"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    from tts_plugins.distributed.connection import connect

    connect(None, num_cpus=2, object_store_memory=200_000_000, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def main(arguments: Sequence[str]) -> int:
    """Run it; return 1 if a row is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ray", description=__doc__)
    parser.add_argument("--only", help="rows, such as 1,4")
    parser.add_argument("--short", action="store_true", help="small, to show that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure")
    given = parser.parse_args(arguments)
    import ray

    start()
    try:
        made = rows(SHORT if given.short else FULL)
        wanted = [int(number) for number in given.only.split(",")] if given.only else list(made)
        found = []
        for number in wanted:
            found.append(made[number]())
            print(f"{number}: {found[-1].ours}", file=sys.stderr, flush=True)
    finally:
        ray.shutdown()
    print(table(found))
    if given.json is not None:
        about = {"short": given.short, "machine": {"cores": os.cpu_count(), "ray": ray.__version__}}
        given.json.write_text(json.dumps({**about, "rows": [row.to_dict() for row in found]}, indent=1))
    # In the short form only what is not a timing has to hold.
    return int(any(row.met is False for row in found if not given.short or row.number in (4, 5, 7)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
