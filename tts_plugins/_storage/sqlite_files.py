"""Files of SQLite that a long run keeps, and what their errors mean: each names the file and says what to do."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.types import well_formed

P = ParamSpec("P")
T = TypeVar("T")


class _Filed(Protocol):
    path: Path


_Owner = TypeVar("_Owner", bound=_Filed)

# By SQLite's primary result code: what has happened, and what to do.
_MEANINGS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "make room and run the same command again: what was paid for is kept"),
    sqlite3.SQLITE_IOERR: ("the disk fails", "check it and the room on it, then run the same command again"),
    sqlite3.SQLITE_CORRUPT: ("the file is damaged or was cut", "restore a copy, or start again in another file"),
    sqlite3.SQLITE_NOTADB: ("it is not a file of this kind, or is damaged", "choose another file"),
    sqlite3.SQLITE_BUSY: ("another process has locked it", "let that one end, then run the same command again"),
    sqlite3.SQLITE_LOCKED: ("another process has locked it", "let that one end, then run the same command again"),
    sqlite3.SQLITE_READONLY: ("it may not be written", "check the permissions of the file and of its folder"),
    sqlite3.SQLITE_CANTOPEN: ("it cannot be opened", "check that its folder is there, and yours to write"),
}


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Raise SQLite's errors of this file as `DataError`: its name, what has happened, and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a defect in this package, such as a file that was closed before
    except sqlite3.Error as error:
        raise DataError(meaning(path, error)) from error


def meaning(path: Path | str, error: sqlite3.Error) -> str:
    """Return the file's name, what an error of SQLite means, and what to do."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    what, fix = _MEANINGS.get(code & 0xFF, ("SQLite cannot use it", "check the file, or choose another"))
    return f"{path}: {what} ({error}); {fix}"


def explained(
    method: Callable[Concatenate[_Owner, P], T],
) -> Callable[Concatenate[_Owner, P], T]:
    """Wrap a method of an object with a `path`, so that SQLite's errors name the file."""

    @functools.wraps(method)
    def call(self: _Owner, *args: P.args, **keywords: P.kwargs) -> T:
        with named(self.path):
            return method(self, *args, **keywords)

    return call  # type: ignore[return-value]  # wraps() names what is called by place alone


def connect(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """Open the file.

    Raises:
        DataError: it cannot be opened.
    """
    with named(path):
        return sqlite3.connect(path, timeout=10.0, check_same_thread=check_same_thread)


def lock_file(path: Path, *, wait: float = 0.5) -> sqlite3.Connection:
    """Take a lock that every platform has, and that ends with its process however that ends.

    Args:
        wait: seconds for another process to let it go.

    Raises:
        ConfigurationError: another process has it.
    """
    lock = connect(path.with_name(f"{path.name}.lock"), check_same_thread=False)
    try:
        lock.execute(f"PRAGMA busy_timeout={1000 * wait:.0f}")
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if ((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise ConfigurationError(
                f"{path}: another process is writing to it ({error}); let it end, or choose another file"
            ) from error
        with named(path.with_name(f"{path.name}.lock")):
            raise
    return lock


def clean(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values as SQLite can store them: it takes no lone surrogates."""
    return tuple(well_formed(value) if isinstance(value, str) else value for value in values)
