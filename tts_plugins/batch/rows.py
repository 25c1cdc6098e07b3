"""Problems as the rows of a JSONL or Parquet file, one after the other; and results as rows of one."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tts_plugins._internal.files import check_row, json_objects, replacing
from tts_plugins._storage.sqlite_files import clean
from tts_plugins.errors import ConfigurationError, DataError, MissingExtraError
from tts_plugins.types import Problem, well_formed

_TOGETHER = 1000  # rows of a Parquet file that are in memory at once
_LINES, _PARQUET = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), ".parquet"
# The columns of a Parquet file of results; `candidates` is JSON in it.
COLUMNS = {"id": "string", "text": "string", "answer": "string", "score": "double", "confidence": "double",
           "agreement": "double", "abstained": "string", "stopped": "string", "error": "string", "seed": "int64",
           "calls": "int64", "requests": "int64",
           "prompt_tokens": "int64", "completion_tokens": "int64", "usd": "double", "seconds": "double",
           "exact": "bool", "candidates": "string"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One problem: its `id`, its content (a text or chat messages), the other fields, and where it stands."""

    id: str
    content: Any
    metadata: Mapping[str, Any]
    where: str

    @property
    def digest(self) -> bytes:
        """What changes with the problem."""
        shown = json.dumps([self.content, dict(self.metadata)], sort_keys=True, default=str)
        return hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    def problem(self) -> Problem:
        """The problem to solve."""
        return Problem(self.content, id=self.id, metadata=self.metadata)


def kind_of(path: Path, option: str) -> str:
    """Return "lines" or "parquet", by the name of the file.

    Raises:
        ConfigurationError: it is neither.
    """
    name = path.name.lower()
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(_LINES):
        return "lines"
    raise ConfigurationError(f"{option} {path}: its name must end in .jsonl, .jsonl.gz or .parquet")


def read_rows(path: Path, *, limit: int | None = None) -> Iterator[Row]:
    """Yield the problems of a file, in their order, without having more than a few in memory.

    A row has `id`, `prompt` (a text) or `messages` (of a chat), and what else a verifier needs. All rows have the same
    fields.

    Raises:
        DataError: the file cannot be read; or a row is malformed, or has other fields than the first; names file, line
            and field.
        MissingExtraError: it is Parquet, and pyarrow is not installed.
    """
    lines = kind_of(path, "batch") == "lines"
    found = json_objects(path) if lines else _parquet(path)
    first: dict[str, Any] | None = None
    for number, value in islice(found, limit):
        first = value if first is None else first
        yield _row(f"{path}, {'line' if lines else 'row'} {number}", value, first)


def _row(where: str, value: dict[str, Any], first: dict[str, Any]) -> Row:
    if differs := sorted(value.keys() ^ first.keys()):
        has = "has, and the first row has not" if differs[0] in value else "lacks, and the first row has it"
        raise DataError(f"{where}, {differs[0]}: a field that this row {has}; give all rows the same fields")
    name = value.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        said = "is missing" if "id" not in value else f"{name!r} is neither a text nor a whole number"
        raise DataError(f"{where}, id: {said}; give each row an id of its own, by which results are kept")
    if isinstance(name, str) and name != well_formed(name):
        raise DataError(f"{where}, id: {name!r} has half a character, and cannot be written; give another id")
    if type(name) is not type(first["id"]):
        raise DataError(f"{where}, id: {name!r} is of another type than the first row's, {first['id']!r}; use one type")
    given = [field for field in ("prompt", "messages") if value.get(field)]
    if len(given) != 1:
        raise DataError(f'{where}, prompt: give either "prompt", a text, or "messages", a list of chat messages')
    rest = {key: item for key, item in value.items() if key not in ("id", "prompt", "messages")}
    row = Row(str(name), value[given[0]], rest, where)
    check_row(where, value)
    try:
        if not isinstance(row.content, str if given[0] == "prompt" else list):
            raise ConfigurationError(f"{row.content!r:.60} must be {'a text' if given[0] == 'prompt' else 'a list'}")
        row.problem()
    except ConfigurationError as error:
        raise DataError(f"{where}, {given[0]}: {error}") from error
    return row


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    parquet = _pyarrow()
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_TOGETHER):
                for value in batch.to_pylist():
                    number += 1
                    yield number, value
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: the file cannot be read as Parquet: {error}") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write results in one step: the file is whole, or as it was before. Return how many there are.

    Raises:
        DataError: it cannot be written; names it, and what to do.
    """
    write = _write_lines if kind_of(path, "batch") == "lines" else _write_parquet
    with replacing(path) as made:
        return write(made, rows)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    with gzip.open(path, "wb") if ".gz." in path.name else path.open("wb") as file:
        for row in rows:
            file.write(well_formed(json.dumps(row, ensure_ascii=False)).encode() + b"\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    parquet = _pyarrow()
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    count, kept = 0, list[dict[str, Any]]()
    with parquet.ParquetWriter(path, schema) as writer:
        for row in rows:
            made = {name: row.get(name) for name in COLUMNS}
            if made["candidates"] is not None:
                made["candidates"] = json.dumps(made["candidates"], ensure_ascii=False)
            kept.append(dict(zip(made, clean(made.values()), strict=True)))
            count += 1
            if len(kept) >= _TOGETHER:
                writer.write_table(pyarrow.Table.from_pylist(kept, schema))
                kept = []
        writer.write_table(pyarrow.Table.from_pylist(kept, schema))
    return count


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet files need pyarrow: pip install 'tts-plugins[ray]', or pyarrow") from error
    return pyarrow.parquet
