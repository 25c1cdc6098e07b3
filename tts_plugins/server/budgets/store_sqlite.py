"""Balances in one SQLite file, for all processes of one machine."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tts_plugins._concurrency import forks
from tts_plugins._storage.sqlite_files import meaning
from tts_plugins.budget import Amount
from tts_plugins.server.budgets.accounts import Balance, Period, StoreFailed, grantable

T = TypeVar("T")
_TABLE = """CREATE TABLE IF NOT EXISTS balances (
    tenant TEXT NOT NULL, period TEXT NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, picousd INTEGER NOT NULL DEFAULT 0,
    spent_calls INTEGER NOT NULL DEFAULT 0, spent_tokens INTEGER NOT NULL DEFAULT 0,
    spent_picousd INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, period)) WITHOUT ROWID"""
_ADD = """INSERT INTO balances VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, period) DO UPDATE SET
    calls = calls + excluded.calls, tokens = tokens + excluded.tokens, picousd = picousd + excluded.picousd,
    spent_calls = spent_calls + excluded.spent_calls, spent_tokens = spent_tokens + excluded.spent_tokens,
    spent_picousd = spent_picousd + excluded.spent_picousd"""
_READ = (
    "SELECT calls, tokens, picousd, spent_calls, spent_tokens, spent_picousd FROM balances WHERE tenant=? AND period=?"
)
_BUSY_SECONDS = 10.0
_left_to_the_parent: list[object] = []


class SQLiteStore:
    """A `UsageStore` in a file. What was committed survives the death of any process.

    One thread of its own does the work, so that a wait for the file's lock holds up no loop.

    Raises:
        StoreFailed: the file cannot be opened and written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        self._connection: sqlite3.Connection | None = None
        self.renew()
        forks.renew(self)
        self._thread.submit(self._opened).result()

    def renew(self) -> None:
        """Begin anew in a forked child: threads do not come along, and the connection stays the parent's."""
        if self._connection is not None:
            _left_to_the_parent.append(self._connection)
        self._connection = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tts-plugins-store")

    async def take(self, tenant: str, periods: tuple[Period, ...], wanted: Amount, *, whole: bool) -> Amount | None:
        """See `UsageStore.take`."""
        return await self._do(lambda c: self._taken(c, tenant, periods, wanted, whole))

    async def settle(self, tenant: str, periods: tuple[Period, ...], taken: Amount, used: Amount) -> None:
        """See `UsageStore.settle`."""
        change = used.minus(taken)

        def settled(connection: sqlite3.Connection) -> None:
            for period in periods:
                connection.execute(_ADD, (tenant, period.key, *change, *used))

        await self._do(settled)

    async def balances(self, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
        """See `UsageStore.balances`."""
        return await self._do(lambda c: _balances(c, tenant, periods))

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            await asyncio.wrap_future(self._thread.submit(self._connection.close))
            self._connection = None
        self._thread.shutdown(wait=False)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
                # WAL: readers and the writer do not wait for each other. NORMAL: safe against the death of a process.
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute(_TABLE)
            except sqlite3.Error as error:
                raise StoreFailed(meaning(self._path, error)) from error
            self._connection = connection
        return self._connection

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            connection = self._opened()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                return result
            except sqlite3.Error as error:
                raise StoreFailed(meaning(self._path, error)) from error

        # Shielded: a caller that goes away must not leave it open whether its transaction was made.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, transaction))

    def _taken(
        self, connection: sqlite3.Connection, tenant: str, periods: tuple[Period, ...], wanted: Amount, whole: bool
    ) -> Amount | None:
        grant = grantable(periods, _balances(connection, tenant, periods), wanted, whole)
        if grant is not None:
            for period in periods:
                connection.execute(_ADD, (tenant, period.key, *grant, 0, 0, 0))
        return grant


def _balances(connection: sqlite3.Connection, tenant: str, periods: tuple[Period, ...]) -> dict[str, Balance]:
    out = {}
    for period in periods:
        row = connection.execute(_READ, (tenant, period.key)).fetchone()
        out[period.key] = Balance() if row is None else Balance(Amount(*row[:3]), Amount(*row[3:]))
    return out
