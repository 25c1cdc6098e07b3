"""Files of the user: an error in writing one names it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tts_plugins.errors import DataError

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
