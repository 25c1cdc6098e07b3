"""What a benchmark's file holds, and how it is begun, recognised and upgraded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_plugins._storage.sqlite_files import clean
from tts_plugins.bench.storage._config_diff import differences, grown, in_grade_alone
from tts_plugins.bench.storage.rows import ProblemRow
from tts_plugins.errors import ConfigurationError, DataError

FORMAT, VERSION = "tts-bench", 3
# Columns that earlier versions do not have. Version 2 keeps the text of an answer that is not one of its solve's
# candidates; version 3 how sure it was, whether it was withheld, and the messages of a problem that is a conversation.
_ADDED = {
    "solves": {"text": "TEXT", "confidence": "REAL", "abstained": "INTEGER NOT NULL DEFAULT 0"},
    "problems": {"messages": "TEXT"},
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (
  id TEXT PRIMARY KEY, place INTEGER NOT NULL, text TEXT, answer TEXT, level TEXT,
  messages TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS solves (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, correct INTEGER, answer TEXT, score REAL,
  chosen INTEGER, stopped TEXT NOT NULL, error TEXT, choice TEXT, calls INTEGER NOT NULL, requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, verifier_tokens INTEGER NOT NULL, usd REAL,
  seconds REAL NOT NULL, exact INTEGER NOT NULL, text TEXT, confidence REAL,
  abstained INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (problem, arm, seed)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS candidates (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, place INTEGER NOT NULL, answer TEXT,
  correct INTEGER, score REAL, tokens INTEGER, truncated INTEGER NOT NULL, finished INTEGER NOT NULL, step_scores TEXT,
  logprobs TEXT, sent_seed INTEGER, text TEXT, PRIMARY KEY (problem, arm, seed, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (
  problem TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, call TEXT NOT NULL, reply TEXT NOT NULL,
  PRIMARY KEY (problem, arm, seed, call)) WITHOUT ROWID;
"""


def begin(
    path: Path, db: sqlite3.Connection, config: Mapping[str, Any], problems: Sequence[ProblemRow], *, regradable: bool
) -> bool:
    """Make it a benchmark's file if it is not one yet; return whether it holds one that differs only in its grade."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        old = read_config(path, db)
        if not is_empty(db):
            if regradable and in_grade_alone(old, config):
                return True
            if grown(old, config):
                _describe(db, config, problems)
                return False
            if changed := differences(old, config):
                raise ConfigurationError(
                    f"{path} holds a benchmark of another configuration: give another --out, or what it was started "
                    f"with; {'; '.join(changed)}"
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
        for name in missing(db, "problems"):  # of a file of an earlier release that grows
            db.execute(f"ALTER TABLE problems ADD COLUMN {name} {_ADDED['problems'][name]}")
        rows = [clean((p.id, place, p.text, p.answer, p.level, p.messages)) for place, p in enumerate(problems)]
        db.executemany(
            "INSERT INTO problems (id, place, text, answer, level, messages) VALUES (?, ?, ?, ?, ?, ?)", rows
        )


def missing(db: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table that the file lacks, since an earlier release made it."""
    there = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
    return [name for name in _ADDED[table] if name not in there]


def upgrade(db: sqlite3.Connection) -> None:
    """Make a file of an earlier release one of this version, all of it or nothing."""
    lacking = [(table, name) for table in _ADDED for name in missing(db, table)]
    if lacking:
        with db:
            db.execute("BEGIN")
            for table, name in lacking:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {name} {_ADDED[table][name]}")
            db.execute("UPDATE about SET value = ? WHERE key = 'version'", (json.dumps(VERSION),))


def is_empty(db: sqlite3.Connection) -> bool:
    return all(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None for table in ("solves", "replies"))


def read_config(path: Path, db: sqlite3.Connection) -> dict[str, Any]:
    try:
        about = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM about")}
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        raise DataError(f"{path} is not a benchmark's file ({error}); choose another") from error
    if about.get("format") != FORMAT:
        raise DataError(f"{path}: format={about.get('format')!r} is not {FORMAT!r}; choose another file")
    if about["version"] > VERSION:
        raise DataError(f"{path}: version={about['version']} is newer than {VERSION}, which this release reads")
    found: dict[str, Any] = about["config"]
    return found
