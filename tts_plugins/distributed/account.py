"""One account for many workers. They draw leases, spend inside them, and return what is left.

Invariant: what all workers were granted and have not returned, and what was spent, is together at most the limit. So
nobody can overspend, whatever message is lost: a worker spends inside its lease only.

An ask never waits here. A worker that gets nothing asks again later, and can settle its own calls meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tts_plugins._storage.sqlite_files import lock_file, named
from tts_plugins.budget import DIMENSIONS, Amount, Budget
from tts_plugins.distributed._open_calls import Alive, used_by_dead
from tts_plugins.errors import BudgetExhausted, TTSError

ZERO = Amount()
Limits = tuple[int | None, ...]
_LOOK_EVERY = 1.0  # seconds between looks for dead workers, while somebody finds no room
_ENDS_WITHIN = 10.0  # seconds for another account on the same file


class Ask(NamedTuple):
    """What a worker says to the account.

    Attributes:
        worker: its name.
        number: of its messages, from 1: the same number again is the same message, sent again.
        spent: all that it has spent so far.
        keep: of all that it was granted, what it does not return.
        need: the least that helps; nothing is granted where this does not fit.
        more: whether it wants more at all.
        node, path: where its file of open calls is; see `_open_calls`.
    """

    worker: str
    number: int
    spent: Amount
    keep: Amount
    need: Amount = ZERO
    more: bool = True
    node: str = ""
    path: str = ""


class Grant(NamedTuple):
    """What the account answers: all that the worker was granted so far, and the most that this can ever become."""

    granted: Amount
    ceiling: Limits


class WorkerLost(TTSError):
    """The account has taken this worker for dead, and has charged what it may have spent."""


@dataclass
class _Lease:
    worker: str
    number: int = 0
    spent: Amount = ZERO
    granted: Amount = ZERO
    node: str = ""
    path: str = ""
    reply: Grant | None = field(default=None, repr=False)

    @property
    def taken(self) -> Amount:
        """What it may still spend and what it has spent; calls that went past their bounds are counted."""
        return _most(self.granted, self.spent)


class Account:
    """The account, in one process; `tts_plugins.distributed.actors` puts it into a Ray actor.

    Args:
        budget: the limits; None for an account that only counts. Its `seconds` are not kept here.
        path: an SQLite file that it is restored from; None to keep it in memory.
        workers: how many there are to be: each gets a share of what is free.
        node: the name of the machine that this runs on, for the files of open calls.
        own: names of workers in this process, which cannot be dead.
        used_by: reads the file of open calls of another node: `used_by(node, path)`, as `used_by_dead`.

    Raises:
        ConfigurationError: another account is open on the file.
        DataError: the file cannot be used.
    """

    def __init__(
        self, budget: Budget | None, path: str | Path | None = None, *, workers: int = 1, node: str = "",
        own: tuple[str, ...] = (), used_by: Callable[[str, str], Amount | None] | None = None,
    ) -> None:  # fmt: skip
        self._limits: Limits = tuple(None if budget is None else budget.limit(d) for d in DIMENSIONS)
        self._workers, self._node, self._own, self._used_by = workers, node, own, used_by
        self._file = _File(path)
        self._settled = self._file.settled()
        self._leases = {lease.worker: lease for lease in self._file.leases()}
        self._looked = 0.0
        self.messages = 0  # since this process started
        self.lost = 0  # workers that died

    @property
    def spent(self) -> Amount:
        """What was spent, as far as it is known."""
        return _sum([self._settled, *(lease.spent for lease in self._leases.values())])

    @property
    def leased(self) -> Amount:
        """What workers may still spend."""
        return _sum([lease.taken.minus(lease.spent) for lease in self._leases.values()])

    def ask(self, ask: Ask) -> Grant:
        """Hear what a worker has spent and returns, and grant more.

        Raises:
            WorkerLost: the worker was taken for dead.
            DataError: the file cannot be written; nothing is granted.
        """
        self.messages += 1
        lease = self._leases.get(ask.worker)
        if lease is None:
            if ask.number > 1:
                raise WorkerLost(f"the account has no worker {ask.worker!r}: it was taken for dead")
            lease = self._leases[ask.worker] = _Lease(ask.worker, node=ask.node, path=ask.path)
        if lease.reply is not None and lease.number == ask.number:
            return lease.reply
        lease.number, lease.spent = ask.number, ask.spent
        lease.granted = _least(lease.granted, ask.keep)
        granted = self._granted(ask) if ask.more else ZERO
        if granted is None and self._bury():
            granted = self._granted(ask)
        lease.granted = lease.granted.plus(granted or ZERO)
        lease.reply = Grant(lease.granted, self._ceiling(lease))
        try:
            self._file.write(lease)
        except BaseException:
            lease.reply = None  # what is not on disk was not granted; asked again, it is granted anew
            raise
        return lease.reply

    def leave(self, worker: str, spent: Amount) -> None:
        """Let a worker go that has nothing in flight: what it did not spend is free again."""
        self._close(worker, spent)

    def bury(self) -> int:
        """Charge workers that died what they had spent and held open; return how many there were."""
        return self._bury(at_once=True)

    def check_left(self, name: str) -> None:
        """Raise if a limit is used up.

        Raises:
            BudgetExhausted: it is; names the account and the limit.
        """
        for what, limit, used in zip(("calls", "tokens", "picodollars"), self._limits, self.spent, strict=True):
            if limit is not None and used >= limit:
                raise BudgetExhausted(f"{name}: {used:,} {what} are spent, of {limit:,}; raise the limit to go on")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _granted(self, ask: Ask) -> Amount | None:
        """Return how much more to grant; None if the need does not fit."""
        taken = _sum([self._settled, *(lease.taken for lease in self._leases.values())])
        count, out = 2 * max(self._workers, len(self._leases)), []
        for limit, used, need in zip(self._limits, taken, ask.need, strict=True):
            free = 0 if limit is None else max(limit - used, 0)
            if limit is not None and need > free:
                return None
            out.append(max(need, free // count) if limit is not None else 0)
        return Amount(*out)

    def _ceiling(self, lease: _Lease) -> Limits:
        """Return what it could ever be granted if all others returned what they have not spent."""
        others = _sum([self._settled, *(o.spent for o in self._leases.values() if o is not lease)])
        return tuple(None if limit is None else limit - o for limit, o in zip(self._limits, others, strict=True))

    def _bury(self, *, at_once: bool = False) -> int:
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_EVERY:
            return 0
        self._looked, count = now, 0
        for lease in list(self._leases.values()):
            if not lease.path or lease.worker in self._own:
                continue
            try:
                used = self._read(lease)
            except Alive:
                continue
            self._close(lease.worker, lease.taken if used is None else _most(used, lease.spent))
            with contextlib.suppress(OSError):
                os.unlink(lease.path)
            count += 1
        self.lost += count
        return count

    def _read(self, lease: _Lease) -> Amount | None:
        if lease.node == self._node:
            return used_by_dead(lease.path)
        if self._used_by is None:
            raise Alive
        return self._used_by(lease.node, lease.path)

    def _close(self, worker: str, spent: Amount) -> None:
        lease = self._leases.get(worker)
        if lease is not None:
            settled = self._settled.plus(_most(spent, lease.spent))
            self._file.remove(worker, settled)
            del self._leases[worker]
            self._settled = settled


class _File:
    """The rows, each change in one transaction that is on disk before the answer is given."""

    def __init__(self, path: str | Path | None) -> None:
        self._path = ":memory:" if path is None else str(path)
        # Two accounts on one file would each grant all that is left. One whose driver was killed ends a little later.
        self._lock = None if path is None else lock_file(Path(path), wait=_ENDS_WITHIN)
        try:
            with self._named():
                self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> None:
        self._db = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS settled (one INTEGER PRIMARY KEY, amount TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS leases (worker TEXT PRIMARY KEY, number INTEGER NOT NULL, "
            "spent TEXT NOT NULL, granted TEXT NOT NULL, ceiling TEXT NOT NULL, node TEXT NOT NULL, "
            "path TEXT NOT NULL) WITHOUT ROWID"
        )

    def settled(self) -> Amount:
        with self._named():
            row = self._db.execute("SELECT amount FROM settled").fetchone()
        return ZERO if row is None else Amount(*json.loads(row[0]))

    def leases(self) -> Iterator[_Lease]:
        with self._named():
            rows = self._db.execute("SELECT worker, number, spent, granted, ceiling, node, path FROM leases").fetchall()
        for worker, number, spent, granted, ceiling, node, path in rows:
            reply = Grant(Amount(*json.loads(granted)), tuple(json.loads(ceiling)))
            yield _Lease(worker, number, Amount(*json.loads(spent)), reply.granted, node, path, reply)

    def write(self, lease: _Lease) -> None:
        assert lease.reply is not None
        row = (lease.worker, lease.number, json.dumps(lease.spent), json.dumps(lease.granted),
               json.dumps(lease.reply.ceiling), lease.node, lease.path)  # fmt: skip
        with self._named():
            self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def remove(self, worker: str, settled: Amount) -> None:
        with self._named(), self._db:
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM leases WHERE worker = ?", (worker,))
            self._db.execute("INSERT OR REPLACE INTO settled VALUES (1, ?)", (json.dumps(settled),))

    def close(self) -> None:
        self._db.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _named(self) -> AbstractContextManager[None]:
        return named(Path(self._path))


def _sum(amounts: list[Amount]) -> Amount:
    return Amount(*map(sum, zip(*amounts, strict=True))) if amounts else ZERO


def _most(one: Amount, other: Amount) -> Amount:
    return Amount(*map(max, one, other))


def _least(one: Amount, other: Amount) -> Amount:
    return Amount(*map(min, one, other))
