"""What the benchmarks of the integrations share: pairs that take turns, the two rows of wall time, and the command."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from benchmarks._files import write_json
from benchmarks._rows import Row, Spread, table
from tts_plugins.errors import BudgetExhausted

N = 8
Pair = tuple[float, float]


def turns(pairs: int, ours: Callable[[], object], bare: Callable[[], object], *, warm: int = 3) -> list[Pair]:
    """Seconds that both take, `pairs` times; they are called in turns, and who goes first alternates."""
    taken: list[Pair] = []
    for number in range(pairs + warm):
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            (ours, bare)[which]()
            spent[which] = time.perf_counter() - start
        taken.append((spent[0], spent[1]))
    return taken[warm:]


def walls(
    measured: Callable[[int, float], Sequence[Pair]], what: str, against: str, *, short: bool, form: str = ""
) -> list[Row]:
    """Rows 1 and 2: best-of-8 at 50 ms against the same requests bare, and at 500 ms against the wait itself.

    Args:
        measured: from a number of pairs and a latency in seconds to what ours and bare took.
    """
    taken = measured(3 if short else 15, 0.05)
    ratio, (ours, bare) = Spread.of([a / b for a, b in taken]), (list(side) for side in zip(*taken, strict=True))
    latency = 0.1 if short else 0.5
    slow = measured(1 if short else 15, latency)
    path, alone = Spread.of([a / latency for a, _ in slow]), Spread.of([b / latency for _, b in slow])
    return [
        Row(
            number=1, what=f"best-of-8 over {what}, a function verifies, 50 ms{form}: wall / {against}",
            must="<= 1.10", met=ratio.median <= 1.10,
            ours=f"{ratio}; {1e3 * Spread.of(ours).median:.1f} / {1e3 * Spread.of(bare).median:.1f} ms",
            figures={"ratio": vars(ratio), "ours_s": ours, "bare_s": bare},
        ),
        Row(
            number=2, what=f"the same at {1e3 * latency:.0f} ms{form}: wall / {1e3 * latency:.0f} ms",
            must="<= 1.15", met=path.median <= 1.15, ours=f"{path}; bare {alone.median:.3f}",
            figures={"ours": vars(path), "bare": vars(alone)},
        ),
    ]  # fmt: skip


def tokens(number: int, what: str, ratios: Sequence[float]) -> Row:
    """A row of tokens in the ledger over tokens that the server counted."""
    return Row(
        number=number, what=f"{what}: tokens in the ledger / counted by the server", must="1",
        ours=", ".join(f"{r:g}" for r in ratios), met=set(ratios) == {1.0},
    )  # fmt: skip


def crowded(number: int, what: str, *, limit: int, counted: int, spent: int, overshoot: int) -> Row:
    """A row of many searches over one ledger of `limit` tokens: none too many spent, and none left out of the account.

    The account may hold more than the server counted: what a server of words instead of tokens says of several choices
    is at times too little to be true, and then charged at its bound.
    """
    over = max(counted - limit, spent - limit, overshoot)
    return Row(
        number=number, what=f"{what} over one ledger of {limit} tokens: overshoot; counted, spent", must="0",
        ours=f"{over}; {counted}, {spent}", met=over == 0 and counted <= spent,
    )  # fmt: skip


async def all_of(calls: Iterable[Awaitable[object]]) -> None:
    """Make the calls at once; that the budget ends some is not a failure here, and anything else is."""
    for end in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(end, BaseException) and not isinstance(end, BudgetExhausted):
            raise end


def threaded(number: int, here: int, samples: Sequence[int]) -> Row:
    """A row of synchronous calls inside a running loop, and from 8 threads."""
    return Row(
        number=number, what="sync call inside a running loop, and from 8 threads: samples each", must="8",
        met={here, *samples} == {N}, ours=f"{here}; {list(samples)}",
    )  # fmt: skip


def command(name: str, doc: str | None, measure: Callable[[bool], list[Row]], arguments: list[str] | None) -> int:
    """Print the table; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    rows = measure(given.short)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}; medians (quartiles)\n")
    print(table(rows))
    if given.json:
        reported = {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]}
        write_json(given.json, reported)
    return 0 if given.short or all(row.met is not False for row in rows) else 1
