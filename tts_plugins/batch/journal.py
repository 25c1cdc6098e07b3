"""What a batch has paid for, in one SQLite file beside its output. What is committed there is never paid again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

from tts_plugins._storage.sqlite_files import connect, explained, lock_file, named
from tts_plugins.batch.rows import Row
from tts_plugins.errors import ConfigurationError, DataError

_FORMAT, _VERSION, _TOGETHER = "tts-batch", 1, 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
  id TEXT PRIMARY KEY, place INTEGER NOT NULL, digest BLOB NOT NULL, read INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (id TEXT PRIMARY KEY, failed INTEGER NOT NULL, row TEXT NOT NULL) WITHOUT ROWID;
"""


class Journal:
    """The journal of one batch, open for writing by one process.

    Args:
        path: its file.
        config: what the results depend on, JSON-serialisable; a journal of another one is refused.

    Raises:
        ConfigurationError: it is of another configuration, or another process writes to it.
        DataError: it is not a journal, or its disk is full.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.rows = 0  # that are registered
        self._lock = lock_file(path)
        try:
            self._db = connect(path)
            self._begin(json.loads(json.dumps(config)))
        except BaseException:
            self._lock.close()
            raise

    @explained
    def _begin(self, config: dict[str, Any]) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        with self._db:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                self._db.execute(statement)
        about = {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM about")}
        if about and (about.get("format") != _FORMAT or about.get("version") != _VERSION):
            raise DataError(f"{self.path}: it is no journal that this release reads; choose another output")
        old = about.get("config", config)
        if changed := [name for name in {**old, **config} if old.get(name) != config.get(name)]:
            said = "; ".join(f"{name} was {old.get(name)!r:.80} and is {config.get(name)!r:.80}" for name in changed)
            raise ConfigurationError(
                f"{self.path} is of a batch with other settings: {said}. Give what it was started with, or another "
                "output"
            )
        new = {"format": _FORMAT, "version": _VERSION, "config": config}
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)", [(key, json.dumps(value)) for key, value in new.items()]
            )

    @explained
    def register(self, rows: Iterable[Row]) -> int:
        """Take note of all rows, before anything is paid; return how many there are.

        Raises:
            DataError: an id occurs twice, or is that of another problem than when this was started.
        """
        place, source = 0, iter(rows)
        with self._db:
            self._db.execute("UPDATE rows SET read = 0")
        while some := list(islice(source, _TOGETHER)):
            with self._db:
                for row in some:
                    self._note(row, place)
                    place += 1
        self.rows = place
        return place

    def _note(self, row: Row, place: int) -> None:
        known = self._db.execute("SELECT digest, read FROM rows WHERE id = ?", (row.id,)).fetchone()
        if known is not None and known[1]:
            raise DataError(f"{row.where}, id: {row.id!r} occurs twice; give each row an id of its own")
        if known is not None and known[0] != row.digest:
            raise DataError(
                f"{row.where}, id: {row.id!r} was another problem when this was started; give it another id, or choose "
                "another output"
            )
        self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, 1)", (row.id, place, row.digest))

    @explained
    def has(self, name: str) -> bool:
        """Return whether a row is solved. One that failed is not: it is tried again."""
        return self._db.execute("SELECT 1 FROM results WHERE id = ? AND NOT failed", (name,)).fetchone() is not None

    @explained
    def add(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Acknowledge results, all or none of them."""
        rows = [(r["id"], r.get("error") is not None, json.dumps(r, ensure_ascii=True)) for r in results]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", rows)

    @explained
    def counts(self) -> tuple[int, int]:
        """Return how many rows of the input are solved, and how many have failed."""
        solved, failed = self._db.execute(
            "SELECT count(*), total(failed) FROM results JOIN rows USING (id) WHERE read"
        ).fetchone()
        return int(solved - failed), int(failed)

    @explained
    def others(self) -> int:
        """Return how many results are of rows that the input has no more."""
        (count,) = self._db.execute("SELECT count(*) FROM results JOIN rows USING (id) WHERE NOT read").fetchone()
        return int(count)

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield the results in the order of the input."""
        with named(self.path):
            cursor: sqlite3.Cursor = self._db.execute(
                "SELECT row FROM results JOIN rows USING (id) WHERE read ORDER BY place"
            )
            for (row,) in cursor:
                yield json.loads(row)

    def close(self) -> None:
        """Close the file, and let others write to it."""
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
