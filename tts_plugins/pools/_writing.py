"""Write a pool's file, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tts_plugins._internal.files import partial, writing
from tts_plugins.pools._records import FORMAT, VERSION, PoolCandidate, PoolHeader, PoolProblem

if TYPE_CHECKING:
    import gzip  # where it is used: importing this package reads no pool


class PoolWriter:
    """Writes a pool problem by problem under a temporary name, and renames it when the `with` block ends well.

    It is gzipped if its name ends in ".gz", else plain.
    """

    def __init__(self, path: str | os.PathLike[str], header: PoolHeader) -> None:
        self._path, self._header = Path(path), header
        self._partial = partial(self._path)
        self._raw: io.BufferedWriter | None = None
        self._file: gzip.GzipFile | io.BufferedWriter | None = None

    def __enter__(self) -> Self:
        with writing(self._path):
            self._raw = self._partial.open("xb")
        self._file = self._raw
        if self._path.suffix == ".gz":
            import gzip

            # Without a time stamp and a name, equal pools are equal bytes.
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
        self._line(header_line(self._header))
        return self

    def add(self, problem: PoolProblem) -> None:
        """Append a problem.

        Raises:
            DataError: it cannot be written: a full disk, say.
        """
        self._line(problem_line(problem))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None and self._raw is not None
        try:
            if kind is None:
                with writing(self._path):
                    if self._file is not self._raw:
                        self._file.close()
                    self._raw.flush()
                    os.fsync(self._raw.fileno())
                    self._raw.close()
                    self._partial.replace(self._path)
        finally:
            for file in (self._file, self._raw):
                with contextlib.suppress(OSError):  # the earlier error is the one that counts
                    file.close()
            self._partial.unlink(missing_ok=True)

    def _line(self, line: bytes) -> None:
        if self._file is None:
            raise RuntimeError("PoolWriter: open it first: with PoolWriter(path, header) as writer")
        with writing(self._path):
            self._file.write(line)


def header_line(header: PoolHeader) -> bytes:
    """A pool's first line."""
    return _line({"format": FORMAT, "version": VERSION, **_plain(header, keep=("model", "dataset"))})


def problem_line(problem: PoolProblem) -> bytes:
    """A pool's line for a problem."""
    shown = _plain(problem, keep=("id", "prompt", "answer", "level"))
    shown["candidates"] = [_plain(c, keep=("answer", "tokens", "correct")) for c in problem.candidates]
    return _line(shown)


def _line(value: Mapping[str, Any]) -> bytes:
    # A lone surrogate, which a model's text or a field of the user may hold, has no form in UTF-8.
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def _plain(value: PoolCandidate | PoolProblem | PoolHeader, keep: Sequence[str]) -> dict[str, Any]:
    """Its fields that say something, and those in `keep` always."""
    out: dict[str, Any] = {}
    for f in fields(value):
        content = getattr(value, f.name)
        if f.name in ("candidates", "extra"):
            continue
        # By identity: a score of 0.0 equals False, and says something.
        if f.name in keep or not (content is None or content is False or content == ()):
            out[f.name] = list(content) if isinstance(content, tuple) else content
    return {**out, **value.extra}
