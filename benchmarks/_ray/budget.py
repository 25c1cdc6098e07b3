"""One budget for four workers, and what its messages and rows cost."""

from __future__ import annotations

import asyncio
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._ray.cost import settings
from benchmarks._ray.work import scripted
from benchmarks._rows import Row
from tts_plugins import Budget, Ledger, Result, solve, solve_stream
from tts_plugins.batch import Journal
from tts_plugins.batch.runner import result_row
from tts_plugins.budget import Amount
from tts_plugins.distributed import Factory, RayEngine
from tts_plugins.distributed.account import Account, Ask


async def _race(count: int, calls: int) -> tuple[int, int, int, int]:
    engine, ledger = RayEngine(workers=4, in_flight=32), Ledger(Budget(calls=calls))
    given = {**settings(Factory(scripted, 0.01)), "budget": ledger}
    asked = solved = 0
    async for _, result in solve_stream((f"q{i}" for i in range(count)), engine=engine, return_errors=True, **given):
        if isinstance(result, Result):
            solved, asked = solved + 1, asked + result.usage.calls
    return asked, ledger.spent.calls, engine.stats.messages, solved


def race_row(count: int) -> Row:
    """Four workers that want more than there is, and the same where the limit is far."""
    calls = 4 * count * 5 // 6
    asked, spent, messages, solved = asyncio.run(_race(count, calls))
    _, _, far, done = asyncio.run(_race(count, 1000 * calls))
    over, used, each = max(asked, spent) - calls, spent / calls, far / done
    met = over <= 0 and used >= 0.99 and messages <= 120 and each <= 0.01
    return Row(
        number=4, what=f"four workers racing for {calls:,} calls: overshoot; used; messages; a solve where it is far",
        must="0; >= 99 %; <= 120; <= 0.01", met=met,
        ours=f"{max(over, 0)}; {100 * used:.2f} %; {messages} for {solved:,} solves; {each:.4f}",
        figures={"over": over, "used": used, "messages": messages, "far_a_solve": each},
    )  # fmt: skip


def unit_row(count: int) -> Row:
    """Microseconds of an account's message, bytes and microseconds of a result, rows a second of a journal."""
    with tempfile.TemporaryDirectory() as folder:
        account = Account(Budget(calls=10**9), Path(folder) / "account", workers=4)
        started = time.perf_counter()
        for number in range(count):
            account.ask(Ask(f"w{number % 4}", number // 4 + 1, Amount(number), Amount(10**8), Amount(4)))
        message = (time.perf_counter() - started) / count
        account.close()
        given: Any = settings(scripted())
        result = asyncio.run(solve("What is 1 + 1?", **given))
        started = time.perf_counter()
        for _ in range(count):
            sent = pickle.dumps(result, protocol=5)
            pickle.loads(sent)
        there_and_back = (time.perf_counter() - started) / count
        rows = [result_row(f"q{i}", result, False) for i in range(256)]
        with Journal(Path(folder) / "journal", {}) as journal:
            started = time.perf_counter()
            for i in range(40):
                journal.add([{**row, "id": f"{i}-{row['id']}"} for row in rows])
            rate = 40 * 256 / (time.perf_counter() - started)
            size = (Path(folder) / "journal").stat().st_size / (40 * 256)
    return Row(
        number=8, what="for docs/scale.md: an account's message; a result; a journal's rows",
        ours=f"{1e6 * message:.0f} us; {len(sent):,} bytes, {1e6 * there_and_back:.0f} us there and back; "
        f"{rate:,.0f} rows a second of {size:.0f} bytes",
        figures={"message_us": 1e6 * message, "result_bytes": len(sent), "result_us": 1e6 * there_and_back,
                 "journal_rows_a_second": rate, "journal_bytes_a_row": size},
    )  # fmt: skip
