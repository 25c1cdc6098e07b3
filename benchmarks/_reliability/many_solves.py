"""CPU of a solve of four where few and many of them share one account: it must not grow with their number."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time

from benchmarks._rows import Row
from tts_plugins import Budget, Ledger, SelfConsistency, solve
from tts_plugins.errors import BudgetExhausted
from tts_plugins.testing import ScriptedModel

FEW, MANY, PAIRS = 100, 3_000, 5


async def _crowd(count: int, calls: int) -> float:
    """Seconds of CPU a solve, of `count` at once over an account of so many calls."""
    account, model = Ledger(Budget(calls=calls)), ScriptedModel(["a"], latency=0.01)

    async def one() -> None:
        with contextlib.suppress(BudgetExhausted):
            await solve("q", model=model, strategy=SelfConsistency(n=4), budget=account)

    gc.collect()
    started = time.process_time()
    await asyncio.gather(*(one() for _ in range(count)))
    assert account.spent.calls <= calls and account.open_holds == 0
    return (time.process_time() - started) / count


def measure(share: float, pairs: int, few: int, many: int) -> dict[str, list[float]]:
    """Seconds a solve, by how many are at once; the account holds this share of their need.

    The collector is off while it is timed: it walks all that lives, which grows with the number by itself.
    """
    out: dict[str, list[float]] = {"few": [], "many": []}
    asyncio.run(_crowd(few, few * 4))
    gc.disable()
    for _ in range(pairs):
        for name, count in (("few", few), ("many", many)):
            # The same number of solves in both, so that the clock has something to measure.
            rounds = max(1, many // count // 4) if name == "few" else 1
            times = [asyncio.run(_crowd(count, max(4, int(count * 4 * share)))) for _ in range(rounds)]
            out[name].append(statistics.mean(times))
    gc.enable()
    return out


def rows(short: bool) -> list[Row]:
    """One row where the account has room for all, one where it has room for half of them."""
    out = []
    for share, what in ((1.0, "room for all"), (0.5, "room for half")):
        few, many, pairs = (10, 40, 1) if short else (FEW, MANY, PAIRS)
        code = (
            "import json; from benchmarks._reliability.many_solves import measure; "
            f"print(json.dumps(measure({share}, {pairs}, {few}, {many})))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
        times = json.loads(done.stdout)
        low, high = statistics.median(times["few"]) * 1e6, statistics.median(times["many"]) * 1e6
        ours = f"{low:.0f} / {high:.0f} us: {high / low:.2f}"
        what = f"CPU a solve of 4, {few} / {many:,} at once on one account with {what}"
        out.append(Row(number=0, what=what, must="<= 1.2", ours=ours, met=high / low <= 1.2, figures=times))
    return out
