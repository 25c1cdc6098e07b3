"""Files of the user: an error in reading or writing one names it."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tts_plugins.errors import ConfigurationError, DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DEEPEST = 100  # levels in what a user writes; a walk through deeper values may end in a RecursionError
_DEEP = f"its values are nested too deeply; keep them to {_DEEPEST} levels"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return the path with the home folder in the place of `~`; as it is where nobody has the name after the `~`.

    Raises:
        ConfigurationError: it is not a path, or has a NUL character, which no system allows in one.
    """
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise ConfigurationError(f"{text!r:.80} is not a path; give the name of a file as text")
    if "\0" in text:
        raise ConfigurationError(f"{text!r:.80} cannot be a path: it has a NUL character; give the name of a file")
    return Path(os.path.expanduser(text))


def check_depth(where: str, value: object) -> None:
    """Raise unless lists and mappings stand within each other a hundred times at most.

    Raises:
        ConfigurationError: they stand deeper; names `where`.
    """
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        if not (level := [item for items in inner for item in items]):
            return
    raise ConfigurationError(f"{where}: {_DEEP}")


def toml_table(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises:
        ConfigurationError: it cannot be read, is not valid, or is nested too deeply; names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror or error}; check its name and your permissions"
        ) from error
    if data.startswith(codecs.BOM_UTF8):
        raise ConfigurationError(
            f"{path}: it begins with a byte-order mark, which TOML does not allow; save it as UTF-8 without BOM"
        )
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise ConfigurationError(f"{path}: {_DEEP}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {_not_utf8(error)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}; correct that place") from error
    except ValueError as error:  # of Python: an int of more digits than it reads, a date that no calendar has
        raise ConfigurationError(
            f"{path} is not valid TOML: {str(error).partition(';')[0]}; correct that value"
        ) from error
    check_depth(str(path), table)
    return table


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}; save it as UTF-8"


def check_row(where: str, value: object) -> None:
    """Raise unless what a user's row holds can be sent and written as JSON in UTF-8.

    Raises:
        DataError: it has half a character, NaN or an infinity; names `where`.
    """
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataError(
            f"{where}: {half} is half a character, and cannot be sent or written; take it out, or write it whole"
        ) from error
    except ValueError as error:
        raise DataError(f"{where}: it has NaN or an infinity, which JSON has not; write null instead") from error


def partial(path: Path) -> Path:
    """Return the temporary name beside a file under which it is written, until it is whole."""
    return path.with_name(f".{path.name}.{os.urandom(16).hex()}.partial")


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `DataError` for an error of the system in this block; `write` alone would not say of which file it is."""
    try:
        yield
    except OSError as error:
        fix = "make room on the disk" if error.errno in _FULL else "check its folder and your permissions"
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}; {fix}, or choose another file"
        ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file to write, which takes the place of `path` at the end; after an error, all is as before.

    Raises:
        DataError: it cannot be written; names `path`, and what to do.
    """
    target = Path(os.path.realpath(path))  # a link stays one, and what it leads to is replaced
    made = partial(target)
    with writing(path):
        try:
            yield made
            made.replace(target)
        finally:
            made.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(path: Path, fix: str = "check its name") -> Iterator[io.BufferedReader]:
    """Open a file of data for reading.

    Args:
        fix: what to do where there is none.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; {fix}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: that is a folder; {fix}") from error
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read: {error.strerror or error}; check its name") from error


def is_sqlite(path: Path, fix: str) -> bool:
    """Return whether it is a file of SQLite, by its first bytes.

    Raises:
        DataError: there is no such file, and `fix` says what to do; or it cannot be read; or it is a pipe, of which
            nobody could read the beginning again.
    """
    if path.is_fifo():
        raise DataError(f"{path}: that is a pipe; write what comes from it into a file, and give that")
    with opened(path, fix) as file:
        return file.read(16).startswith(b"SQLite format 3")


def json_objects(path: Path, fix: str = "check its name") -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines, gzipped or plain, or of a pipe, each with the number of its line.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object; names file and line.
    """
    import gzip
    import zlib

    number = 0
    with opened(path, fix) as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if raw.peek(1).startswith(b"\x1f") else raw
        try:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _object(line, f"{path}, line {number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{path}: the file cannot be read: after line {number} it is broken or cut ({error})"
            ) from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
        if line.count(b"[") + line.count(b"{") > _DEEPEST:  # else it cannot be deeper
            check_depth(where, value)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {_not_utf8(error)}") from error
    except (RecursionError, ConfigurationError):
        raise DataError(f"{where}: {_DEEP}") from None
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({str(error).partition(';')[0]}); correct that line") from error
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: {kind}, but an object is needed; write one as {{...}} in each line")
    return value
