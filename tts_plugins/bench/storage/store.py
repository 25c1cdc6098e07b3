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

from tts_plugins.bench.storage._config_diff import differences, grown, in_grade_alone
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveKey, SolveRow
from tts_plugins.errors import ConfigurationError, DataError

FORMAT, VERSION = "tts-bench", 2
# Version 2 keeps the text of an answer that is none of its solve's candidates.
_SINCE_1 = "text"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (
  id TEXT PRIMARY KEY, place INTEGER NOT NULL, text TEXT, answer TEXT, level TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS solves (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, correct INTEGER, answer TEXT, score REAL,
  chosen INTEGER, stopped TEXT NOT NULL, error TEXT, choice TEXT, calls INTEGER NOT NULL, requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, verifier_tokens INTEGER NOT NULL, usd REAL,
  seconds REAL NOT NULL, exact INTEGER NOT NULL, text TEXT, PRIMARY KEY (problem, arm, seed)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS candidates (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, place INTEGER NOT NULL, answer TEXT,
  correct INTEGER, score REAL, tokens INTEGER, truncated INTEGER NOT NULL, finished INTEGER NOT NULL, step_scores TEXT,
  logprobs TEXT, sent_seed INTEGER, text TEXT, PRIMARY KEY (problem, arm, seed, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, call TEXT NOT NULL, reply TEXT NOT NULL,
  PRIMARY KEY (problem, arm, seed, call)) WITHOUT ROWID;
"""

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
            config: JSON-serialisable; whatever changes what the results mean.
            durable: wait for the disk at each commit, so that a power cut loses nothing either. Without it, `kill -9`
                loses nothing, and a power cut the last moments.
            regrade: gives the rows anew where `grade` is all that differs from what the file was begun with.
            always: also where nothing differs, since the configuration cannot tell one grade from another.

        Raises:
            ConfigurationError: the file holds another configuration (names what differs), another process writes to
                it, or it cannot be made.
            DataError: the file is no benchmark's, or of a newer version.
        """
        path = Path(path).expanduser()
        lock = _lock(path)
        try:
            db = _connect(path)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            config, store = json.loads(json.dumps(config)), cls(path, db, lock)
            differs = _begin(path, db, config, problems, mendable=regrade is not None)
            _upgrade(db)
            if (differs or (always and not _is_empty(db))) and regrade is not None:
                store._regrade(config, list(regrade(store)))
        except BaseException:
            lock.close()
            raise
        return store

    @classmethod
    def read(cls, path: str | Path) -> Store:
        """A benchmark's file, to look at; also while it is being written.

        Raises:
            DataError: there is no such file, or it is no benchmark's.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise DataError(f"{path}: there is no such file; `tts-plugins bench … --out {path}` makes one")
        db = _connect(path)
        _config(path, db)
        return cls(path, db, None)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that it was made with."""
        return _config(self.path, self._db)

    def problems(self) -> list[ProblemRow]:
        """All problems, in their order."""
        rows = self._db.execute("SELECT id, text, answer, level FROM problems ORDER BY place")
        return [ProblemRow(id=i, text=t, answer=a, level=v) for i, t, a, v in rows]

    def done(self) -> set[tuple[str, str, int]]:
        """The problem, arm and seed of each solve that has ended."""
        return set(self._db.execute("SELECT problem, arm, seed FROM solves"))

    def solves(self) -> list[SolveRow]:
        """All solves that have ended, by problem, arm and seed."""
        names = [f.name for f in fields(SolveRow) if f.name != _SINCE_1 or _is_current(self._db)]
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM solves ORDER BY problem, arm, seed")
        return [SolveRow(**_typed(dict(zip(names, row, strict=True)), "correct", "exact")) for row in rows]

    def candidates(self) -> dict[tuple[str, str, int], list[CandidateRow]]:
        """The candidates of each solve, in their order."""
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

    def add(self, solves: Iterable[tuple[SolveRow, Sequence[CandidateRow]]]) -> None:
        """Acknowledge solves with their candidates, all or none of them."""
        with self._db:
            self._write(solves)

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
                f"INSERT INTO candidates ({columns}) VALUES ({marks})", [(*key, *_plain(c)) for c in candidates]
            )
            self._db.execute("DELETE FROM replies WHERE problem = ? AND arm = ? AND seed = ?", key)

    def clear(self) -> None:
        """Forget all solves, such as those beside a strategy that was refused."""
        with self._db:
            for table in ("solves", "candidates", "replies"):
                self._db.execute(f"DELETE FROM {table}")

    def reply(self, key: SolveKey, call: str) -> str | None:
        """What a model replied to a call of a solve that has not ended yet; None where it was not asked."""
        found = self._db.execute(
            "SELECT reply FROM replies WHERE problem = ? AND arm = ? AND seed = ? AND call = ?",
            (key.problem, key.arm, key.seed, call),
        ).fetchone()
        return None if found is None else str(found[0])

    def add_reply(self, key: SolveKey, call: str, reply: str) -> None:
        """Acknowledge a reply."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", (key.problem, key.arm, key.seed, call, reply)
            )

    @staticmethod
    def remove(path: str | Path) -> None:
        """Delete a benchmark's file and what stands beside it."""
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


def _connect(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, timeout=10.0)
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"{path} cannot be opened: {error}; is its folder there, and yours to write?"
        ) from error


def _lock(path: Path) -> sqlite3.Connection:
    """A lock that every platform has and that ends with its process, however that ends."""
    lock = _connect(path.with_name(f"{path.name}.lock"))
    try:
        lock.execute("PRAGMA busy_timeout=500")
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise ConfigurationError(
            f"{path}: another process is writing to it ({error}); let it end, or choose another --out"
        ) from error
    return lock


def _begin(
    path: Path, db: sqlite3.Connection, config: Mapping[str, Any], problems: Sequence[ProblemRow], *, mendable: bool
) -> bool:
    """Make it a benchmark's file, where it is none yet; whether it holds one that differs in its grade alone."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        old = _config(path, db)
        if not _is_empty(db):
            if mendable and in_grade_alone(old, config):
                return True
            if grown(old, config):
                _describe(db, config, problems)
                return False
            if changed := differences(old, config):
                raise ConfigurationError(
                    f"{path} holds a benchmark of another configuration: {'; '.join(changed)}. Give what it was begun "
                    "with, or another --out"
                )
            return False
        # Nothing was paid for yet: a plan that was refused leaves no claim on its file.
    _describe(db, config, problems)
    return False


def _describe(db: sqlite3.Connection, config: Mapping[str, Any], problems: Sequence[ProblemRow]) -> None:
    """Write down what it is a benchmark of."""
    about = {"format": FORMAT, "version": VERSION, "config": config}
    with db:  # all of it or nothing, so that a kill here leaves an empty file, which is begun again
        db.execute("BEGIN")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            db.execute(statement)
        for table in ("about", "problems"):
            db.execute(f"DELETE FROM {table}")
        db.executemany("INSERT INTO about VALUES (?, ?)", [(k, json.dumps(v)) for k, v in about.items()])
        rows = [(p.id, place, p.text, p.answer, p.level) for place, p in enumerate(problems)]
        db.executemany("INSERT INTO problems VALUES (?, ?, ?, ?, ?)", rows)


def _is_current(db: sqlite3.Connection) -> bool:
    return any(name == _SINCE_1 for _, name, *_ in db.execute("PRAGMA table_info(solves)"))


def _upgrade(db: sqlite3.Connection) -> None:
    """Make a file of an earlier release one of this version, all of it or nothing."""
    if not _is_current(db):
        with db:
            db.execute("BEGIN")
            db.execute(f"ALTER TABLE solves ADD COLUMN {_SINCE_1} TEXT")
            db.execute("UPDATE about SET value = ? WHERE key = 'version'", (json.dumps(VERSION),))


def _is_empty(db: sqlite3.Connection) -> bool:
    return all(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None for table in ("solves", "replies"))


def _config(path: Path, db: sqlite3.Connection) -> dict[str, Any]:
    try:
        about = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM about")}
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: it is no benchmark's file ({error}); choose another") from error
    if about.get("format") != FORMAT:
        raise DataError(f"{path}: format={about.get('format')!r} is not {FORMAT!r}; choose another file")
    if about["version"] > VERSION:
        raise DataError(f"{path}: version={about['version']} is newer than {VERSION}, which this release reads")
    found: dict[str, Any] = about["config"]
    return found


def _insert(db: sqlite3.Connection, table: str, row: Mapping[str, Any]) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _plain(row: CandidateRow) -> list[Any]:
    values = ((f.name, getattr(row, f.name)) for f in fields(row))
    return [(json.dumps(value) if value else None) if name in _LISTS else value for name, value in values]


def _typed(row: dict[str, Any], *flags: str) -> dict[str, Any]:
    """SQLite has no truth values."""
    for name in flags:
        row[name] = None if row[name] is None else bool(row[name])
    return row
