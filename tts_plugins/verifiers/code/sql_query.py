"""Queries scored by running them, read-only, in a connection of their own thread."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.untrusted_text import neutralise
from tts_plugins._internal.values import is_number
from tts_plugins.answers import without_thoughts
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._free import FreeVerifier

Rows = Sequence[Sequence[Any]]

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READS = re.compile(r"\s*(?:select|with|values|explain|show|describe|table)\b", re.IGNORECASE)


class SQLVerifier(FreeVerifier):
    """Scores a candidate's query: 1 where it runs, or gives the expected rows; else 0, with the error as feedback.

    Args:
        connect: opens a connection of Python's database interface (DB-API 2), such as
            `lambda: sqlite3.connect("shop.db")`. It is called on the verifier's own thread, where all queries run.
        expected: the rows that are right, or a function from the problem to them; None where to run is enough.
        ordered: whether the order of the rows counts.
        rows: of more, the query is stopped and scores 0.
        timeout: seconds for one query.

    A query is the last block of SQL in the text, or all of it, and has to be one statement that reads. It runs in a
    transaction that is always rolled back; SQLite's connections are set to refuse writing, too. Give `connect` a user
    without the right to write all the same: functions of a database may write.

    Raises:
        ConfigurationError: a field is out of range.
    """

    name = "SQLVerifier"

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        expected: Rows | Callable[[Problem], Rows] | None = None,
        ordered: bool = False,
        rows: int = 1000,
        timeout: float = 5.0,
    ) -> None:
        if not callable(connect):
            raise ConfigurationError(
                f"SQLVerifier: connect={connect!r} cannot be called; pass a function that opens a connection"
            )
        check_count("SQLVerifier", "rows", rows)
        if not is_number(timeout) or not 0 < timeout < 86_400:
            raise ConfigurationError(f"SQLVerifier: timeout={timeout!r} must be a number of seconds above 0")
        self._connect, self._expected, self._ordered = connect, expected, ordered
        self._rows, self._timeout = rows, float(timeout)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tts-plugins-sql")
        self._connection: Any = None

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0.

        Raises:
            VerifierError: no connection could be had.
        """
        query = query_of(candidate.text)
        if trouble := refused(query):
            return Score(value=0.0, feedback=trouble)
        wanted = self._expected(candidate.problem) if callable(self._expected) else self._expected
        found = await asyncio.wrap_future(self._thread.submit(self._run, query))
        if isinstance(found, str):
            return Score(value=0.0, feedback=neutralise(found))
        if wanted is not None and not self._same(found, wanted):
            return Score(value=0.0, feedback=f"it gave {len(found)} rows, and not the expected ones; the first: "
                         f"{neutralise(repr(found[:1]))[:200]}", details={"rows": len(found)})  # fmt: skip
        return Score(value=1.0, details={"rows": len(found)})

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.submit(self._leave).result()
        self._thread.shutdown()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, query: str) -> list[tuple[Any, ...]] | str:
        """The rows, or in words why there are none."""
        try:
            connection = self._connection = self._connection or _opened(self._connect)
        except Exception as error:
            raise VerifierError(f"SQLVerifier: no connection, {type(error).__name__}: {error}") from error
        stopped = threading.Event()
        timer = threading.Timer(self._timeout, _stop, (connection, stopped))
        timer.daemon = True
        timer.start()
        try:
            cursor = connection.cursor()
            try:
                cursor.execute(query)
                found = [] if cursor.description is None else [tuple(row) for row in cursor.fetchmany(self._rows + 1)]
            finally:
                cursor.close()
        except Exception as error:  # noqa: BLE001 - the databases' errors have no base in common
            if stopped.is_set():
                return f"it took longer than {self._timeout:g} s"
            return f"{type(error).__name__}: {error}"
        finally:
            timer.cancel()
            try:
                connection.rollback()
            except Exception:  # noqa: BLE001 - a connection that is broken is opened anew
                self._connection = None
        return found if len(found) <= self._rows else f"it gives more than {self._rows} rows"

    def _same(self, found: Rows, wanted: Rows) -> bool:
        ours, theirs = ([tuple(row) for row in rows] for rows in (found, wanted))
        return ours == theirs if self._ordered else Counter(map(repr, ours)) == Counter(map(repr, theirs))


def query_of(text: str) -> str:
    """The query in a text: its last block of SQL, its last block of no language, or all of it."""
    text = without_thoughts(text.replace("\r\n", "\n"))
    blocks = [(m[2].lower(), m[3]) for m in _FENCE.finditer(text)]
    named = [body for language, body in blocks if "sql" in language] or [b for language, b in blocks if not language]
    return (named[-1] if named else text).strip().rstrip(";").strip()


def refused(query: str) -> str:
    """Why a query is not run; empty where it is."""
    plain = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"", "''", _COMMENT.sub(" ", query))
    if not plain.strip():
        return "there is no query"
    if ";" in plain:
        return "it has more than one statement; write one"
    return "" if _READS.match(plain) else "it does not read only; write a SELECT"


def _opened(connect: Callable[[], Any]) -> Any:
    connection = connect()
    if type(connection).__module__.startswith("sqlite3"):
        connection.execute("PRAGMA query_only = ON")
    return connection


def _stop(connection: Any, stopped: threading.Event) -> None:
    """Interrupt what runs; SQLite, psycopg and others know how."""
    stopped.set()
    for name in ("interrupt", "cancel"):
        stop = getattr(connection, name, None)
        if callable(stop):
            stop()
            return
