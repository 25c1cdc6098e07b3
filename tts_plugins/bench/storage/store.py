"""Where a benchmark keeps what it has paid for: one SQLite file that survives `kill -9` at any moment.

One row for each solve, one for each of its candidates, and one for each reply of a model to a solve that has not ended
yet. A row is acknowledged once its transaction is committed; what is acknowledged is never asked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tts_plugins._internal.files import expanded, is_sqlite
from tts_plugins._storage.sqlite_files import clean, connect, explained, lock_file, named
from tts_plugins.bench.storage._format import begin, is_empty, missing, read_config, upgrade
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveKey, SolveRow

_LISTS = ("step_scores", "logprobs")  # fields that are JSON in their columns


class Store:
    """A benchmark's file, open for writing by one process, or for reading by any.

    Use `Store.open` to begin or go on, `Store.read` to look.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: sqlite3.Connection | None) -> None:
        self.path = path
        self.regraded = 0  # solves that were given another grade when it was opened
        self._db, self._lock = connection, lock

    @classmethod
    def open(
        cls, path: str | Path, config: Mapping[str, Any], problems: Sequence[ProblemRow], *, durable: bool = True,
        regrade: Callable[[Store], Iterable[tuple[SolveRow, Sequence[CandidateRow]]]] | None = None,
        always: bool = False,
    ) -> Store:  # fmt: skip
        """Begin a benchmark in a new file, or go on with it in one of the same configuration, or with more problems.

        Args:
            path: of the SQLite file.
            problems: all that the benchmark asks, in order.
            config: JSON-serialisable; whatever changes what the results mean.
            durable: wait for the disk at each commit, so that a power cut loses nothing either. Without it, `kill -9`
                loses nothing, and a power cut the last moments.
            regrade: makes the rows again if only `grade` differs from what the file was started with.
            always: also if nothing differs, since the configuration cannot tell one grade from another.

        Raises:
            ConfigurationError: the file holds another configuration (names what differs), another process writes to
                it, or it cannot be made.
            DataError: the file is not a benchmark's, or of a newer version; it is damaged, locked, or its disk is full.
        """
        path = expanded(path)
        lock = lock_file(path)
        try:
            with named(path):
                db = connect(path)
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                config, store = json.loads(json.dumps(config)), cls(path, db, lock)
                differs = begin(path, db, config, problems, regradable=regrade is not None)
                upgrade(db)
            if (differs or (always and not is_empty(db))) and regrade is not None:
                store._regrade(config, list(regrade(store)))
        except BaseException:
            lock.close()
            raise
        return store

    @classmethod
    def read(cls, path: str | Path) -> Store:
        """Return a benchmark's file, to look at; also while it is being written.

        Raises:
            DataError: there is no such file, or it is not a benchmark's.
        """
        path = expanded(path)
        is_sqlite(path, f"`tts-plugins bench … --out {path}` makes one")
        with named(path):
            db = connect(path)
            read_config(path, db)
        return cls(path, db, None)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that it was made with."""
        with named(self.path):
            return read_config(self.path, self._db)

    @explained
    def problems(self) -> list[ProblemRow]:
        """Return all problems, in their order."""
        messages = "NULL" if missing(self._db, "problems") else "messages"
        rows = self._db.execute(f"SELECT id, text, answer, level, {messages} FROM problems ORDER BY place")
        return [ProblemRow(id=i, text=t, answer=a, level=v, messages=m) for i, t, a, v, m in rows]

    @explained
    def done(self) -> set[tuple[str, str, int]]:
        """Return the problem, arm and seed of each solve that has ended."""
        return set(self._db.execute("SELECT problem, arm, seed FROM solves"))

    @explained
    def solves(self) -> list[SolveRow]:
        """Return all solves that have ended, by problem, arm and seed."""
        lacking = missing(self._db, "solves")
        names = [f.name for f in fields(SolveRow) if f.name not in lacking]
        flags = [name for name in ("correct", "exact", "abstained") if name in names]
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM solves ORDER BY problem, arm, seed")
        return [SolveRow(**_typed(dict(zip(names, row, strict=True)), *flags)) for row in rows]

    @explained
    def candidates(self) -> dict[tuple[str, str, int], list[CandidateRow]]:
        """Return the candidates of each solve, in their order."""
        names = [f.name for f in fields(CandidateRow)]
        rows = self._db.execute(
            f"SELECT problem, arm, seed, {', '.join(names)} FROM candidates ORDER BY problem, arm, seed, place"
        )
        out: dict[tuple[str, str, int], list[CandidateRow]] = {}
        for problem, arm, seed, *row in rows:
            made = _typed(dict(zip(names, row, strict=True)), "correct", "truncated", "finished")
            made.update({name: tuple(json.loads(made[name] or "[]")) for name in _LISTS})
            out.setdefault((problem, arm, seed), []).append(CandidateRow(**made))
        return out

    @explained
    def add(self, solves: Iterable[tuple[SolveRow, Sequence[CandidateRow]]]) -> None:
        """Acknowledge solves with their candidates, all or none of them."""
        with self._db:
            self._write(solves)

    @explained
    def _regrade(self, config: Mapping[str, Any], solves: Sequence[tuple[SolveRow, Sequence[CandidateRow]]]) -> None:
        with self._db:  # all of it or nothing
            for table in ("solves", "candidates"):
                self._db.execute(f"DELETE FROM {table}")
            self._write(solves)
            self._db.execute("UPDATE about SET value = ? WHERE key = 'config'", (json.dumps(config),))
        self.regraded = len(solves)

    def _write(self, solves: Iterable[tuple[SolveRow, Sequence[CandidateRow]]]) -> None:
        for solve, candidates in solves:
            key = (solve.problem, solve.arm, solve.seed)
            _insert(self._db, "solves", {f.name: getattr(solve, f.name) for f in fields(solve)})
            marks = ", ".join("?" * (3 + len(fields(CandidateRow))))
            columns = ", ".join(["problem", "arm", "seed", *(f.name for f in fields(CandidateRow))])
            self._db.executemany(
                f"INSERT INTO candidates ({columns}) VALUES ({marks})", [(*key, *clean(_plain(c))) for c in candidates]
            )
            self._db.execute("DELETE FROM replies WHERE problem = ? AND arm = ? AND seed = ?", key)

    @explained
    def clear(self) -> None:
        """Forget all solves, such as those beside a strategy that was refused."""
        with self._db:
            for table in ("solves", "candidates", "replies"):
                self._db.execute(f"DELETE FROM {table}")

    @explained
    def reply(self, key: SolveKey, call: str) -> str | None:
        """Return what a model replied to a call of a solve that has not ended yet; None if it was not asked."""
        found = self._db.execute(
            "SELECT reply FROM replies WHERE problem = ? AND arm = ? AND seed = ? AND call = ?",
            (key.problem, key.arm, key.seed, call),
        ).fetchone()
        return None if found is None else str(found[0])

    @explained
    def add_reply(self, key: SolveKey, call: str, reply: str) -> None:
        """Acknowledge a reply."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", (key.problem, key.arm, key.seed, call, reply)
            )

    @staticmethod
    def remove(path: str | Path) -> None:
        """Delete a benchmark's file and the files beside it."""
        for end in ("", "-wal", "-shm", ".lock"):
            path = Path(path)
            path.with_name(path.name + end).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and let others write to it."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", clean(row.values()))


def _plain(row: CandidateRow) -> list[Any]:
    values = ((f.name, getattr(row, f.name)) for f in fields(row))
    return [(json.dumps(value) if value else None) if name in _LISTS else value for name, value in values]


def _typed(row: dict[str, Any], *flags: str) -> dict[str, Any]:
    """Return the row with Booleans, which SQLite does not have."""
    for name in flags:
        row[name] = None if row[name] is None else bool(row[name])
    return row
