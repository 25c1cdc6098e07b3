"""Files of the user: an error in reading or writing one names it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tts_plugins.errors import DataError, TTSError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def json_objects(path: Path, unreadable: type[TTSError] = DataError) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines, gzipped or plain, each with the number of its line.

    Raises:
        DataError: a line is not a JSON object; names file and line.
        unreadable: the file cannot be read.
    """
    import gzip

    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _object(line, f"{path}, line {number}")
    except (EOFError, gzip.BadGzipFile) as error:
        raise unreadable(
            f"{path}: the file cannot be read: after line {number} it is broken or cut ({error})"
        ) from error
    except OSError as error:
        raise unreadable(f"{path}: the file cannot be read: {error.strerror or error}; check its name") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: {type(value).__name__}, but an object is needed")
    return value
