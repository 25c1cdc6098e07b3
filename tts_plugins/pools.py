"""Recorded samples, on which strategies are replayed without calling a model; one gzipped JSONL file for each pool.

The first line describes the pool, `{"format": "tts-pool", "version": 1, "model": …, "dataset": …, …}`; each further
line is a problem with its candidates. Keys that this version does not know are kept in `extra` and written back.
"""

from __future__ import annotations

import bisect
import contextlib
import io
import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tts_plugins._internal.config import in_unit
from tts_plugins._internal.files import partial, writing
from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.selection import Aggregate, aggregate
from tts_plugins.types import EMPTY, Problem

if TYPE_CHECKING:
    import gzip  # where it is used: importing this package reads no pool

FORMAT, VERSION = "tts-pool", 1
T = TypeVar("T", bound="PoolCandidate | PoolProblem | PoolHeader")


@dataclass(frozen=True, kw_only=True)
class PoolCandidate:
    """One recorded sample.

    Attributes:
        text: what the model wrote; None where only its answer was kept.
        answer: its answer or the class of equal answers; None where none could be read.
        tokens: completion tokens; None where they were not counted.
        correct: for measuring only; None where it was not graded.
        step_scores, score: a verifier's scores of the steps and of the whole, in [0, 1].
        truncated: whether a length limit cut it.
        extra: what else the line holds.
    """

    text: str | None = None
    answer: str | None = None
    tokens: int | None = None
    correct: bool | None = None
    step_scores: tuple[float, ...] = ()
    score: float | None = None
    truncated: bool = False
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)

    @property
    def blank(self) -> bool:
        """Whether it says nothing: an empty text and no answer. A text that was not kept is not known to be empty."""
        return self.text is not None and not self.text.strip() and not (self.answer and self.answer.strip())

    def scored(self, how: Aggregate = "last") -> float | None:
        """Return the recorded score: that of the whole, else the combined step scores; None if there is neither."""
        if self.score is not None:
            return self.score
        return aggregate(self.step_scores, how) if self.step_scores else None


@dataclass(frozen=True, kw_only=True)
class PoolProblem:
    """A problem with its recorded samples.

    Attributes:
        id: unique in the pool.
        prompt: as it was asked; None where it was not kept.
        answer: the gold answer.
        level: difficulty as the dataset gives it.
        candidates: in the order of recording.
        prompt_tokens: of one request; None if they were not counted.
    """

    id: str
    prompt: str | None = None
    answer: str | None = None
    level: int | str | None = None
    candidates: tuple[PoolCandidate, ...] = ()
    prompt_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)

    def problem(self) -> Problem:
        """Return a new `Problem` for `solve`; a `ReplayModel` starts over for each one."""
        content = self.prompt if self.prompt and self.prompt.strip() else f"problem {self.id}"
        return Problem(content, id=self.id, metadata={"answer": self.answer, "level": self.level, **self.extra})


@dataclass(frozen=True, kw_only=True)
class PoolHeader:
    """The first line: the model, the data set, the licence. `tokens` says how tokens were counted."""

    model: str
    dataset: str
    source: str | None = None
    licence: str | None = None
    verifier: str | None = None
    tokens: str | None = None
    note: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Recorded samples of one model on one dataset. Compared by value."""

    header: PoolHeader
    problems: tuple[PoolProblem, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for p in self.problems:
            if p.id in seen:
                raise DataError(f"pool: the problem id {p.id!r} stands twice; give each problem its own")
            seen.add(p.id)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, squash: str | None = None) -> Pool:
        """Read the pool in a file, gzipped or plain.

        Args:
            squash: how raw reward scores come into [0, 1]: "sigmoid", 1 / (1 + exp(-score)), for logits; or "rank", the
                share of the pool's scores that are no higher, for any other scale. None where they are in it.

        Raises:
            DataError: the file cannot be read, is not a pool, is of a newer version, or has a malformed line; names
                file, line and field.
        """
        if squash not in (None, *SQUASHES):
            raise ConfigurationError(f"Pool.read: squash={squash!r} is not known; use {' or '.join(SQUASHES)}")
        return _read(Path(path), squash)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it; the file appears whole or not at all."""
        with PoolWriter(path, self.header) as writer:
            for p in self.problems:
                writer.add(p)

    def split(self, parts: int = 2, *, seed: int = 0) -> tuple[Pool, ...]:
        """Split into parts of nearly equal size with the problems shuffled, for folds.

        Raises:
            ConfigurationError: fewer problems than parts.
        """
        if parts < 1 or parts > len(self.problems):
            raise ConfigurationError(f"split: parts={parts} must be 1 to {len(self.problems)}; no part may be empty")
        order = list(self.problems)
        random.Random(seed).shuffle(order)
        return tuple(replace(self, problems=tuple(order[i::parts])) for i in range(parts))

    @property
    def fewest(self) -> int:
        """The fewest candidates of any problem, which is the largest `n` that all problems can serve."""
        return min((len(p.candidates) for p in self.problems), default=0)

    @property
    def exact_tokens(self) -> bool:
        """Whether tokens were counted, and not estimated, according to the header."""
        return not (self.header.tokens or "").startswith("estimated")


class PoolWriter:
    """Writes a pool problem by problem under a temporary name, and renames it when the `with` block ends well."""

    def __init__(self, path: str | os.PathLike[str], header: PoolHeader) -> None:
        self._path, self._header = Path(path), header
        self._partial = partial(self._path)
        self._raw: io.BufferedWriter | None = None
        self._file: gzip.GzipFile | None = None

    def __enter__(self) -> Self:
        with writing(self._path):
            self._raw = self._partial.open("xb")
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


def _read(path: Path, squash: str | None = None) -> Pool:
    lines = _lines(path) if squash is None else _squashed(_lines(path), squash)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: the file is empty; its first line has to describe the pool")
    header = _header(f"{path}, line 1", first[1])
    problems: list[PoolProblem] = []
    numbers: dict[str, int] = {}
    for number, value in lines:
        problem = _problem(f"{path}, line {number}", value)
        if problem.id in numbers:
            raise DataError(f"{path}, line {number}, id: {problem.id!r} stands in line {numbers[problem.id]} already")
        numbers[problem.id] = number
        problems.append(problem)
    return Pool(header=header, problems=tuple(problems))


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import gzip

    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise DataError(f"{path}, line {number}: {type(value).__name__} where an object is wanted")
                yield number, value
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; `tts-plugins record` makes a pool") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: the gzip file is broken or cut ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 ({error})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: the pool cannot be read: {error.strerror or error}") from error


SQUASHES = ("sigmoid", "rank")


def _squashed(lines: Iterator[tuple[int, Mapping[str, Any]]], how: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Bring the raw scores of all lines into [0, 1]; what is no number is left for the reader to refuse."""
    found = list(lines)
    rows = [c for _, value in found for c in value.get("candidates") or () if isinstance(c, dict)]
    known = sorted(s for row in rows for s in (row.get("score"), *(row.get("step_scores") or ())) if _finite(s))

    def one(score: Any) -> Any:
        if not _finite(score):
            return score
        if how == "rank":
            return bisect.bisect_right(known, score) / len(known)
        return 0.5 * (1 + math.tanh(score / 2))

    for row in rows:
        if "score" in row:
            row["score"] = one(row["score"])
        if isinstance(row.get("step_scores"), list):
            row["step_scores"] = [one(s) for s in row["step_scores"]]
    return iter(found)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _header(where: str, value: Mapping[str, Any]) -> PoolHeader:
    if value.get("format") != FORMAT:
        raise DataError(
            f'{where}, format: {value.get("format")!r} is not a pool; the first line has "format": "{FORMAT}"'
        )
    version = value.get("version")
    if not is_whole(version, 1):
        raise DataError(f"{where}, version: {version!r} must be a whole number of at least 1")
    if version > VERSION:
        raise DataError(f"{where}, version: {version} is newer than {VERSION}, which this release reads; upgrade it")
    text = {name: _text(where, name, value, need=name in ("model", "dataset")) for name in _names(PoolHeader)}
    known = {"format", "version", *text}
    return PoolHeader(**text, extra=_rest(value, known))  # type: ignore[arg-type]  # needed ones are checked


def _problem(where: str, value: Mapping[str, Any]) -> PoolProblem:
    level, candidates = value.get("level"), value.get("candidates")
    if isinstance(level, bool) or not isinstance(level, int | str | None):
        raise DataError(f"{where}, level: {level!r} must be a whole number, a text or null")
    if not isinstance(candidates, list):
        raise DataError(f"{where}, candidates: {_shown(value, 'candidates')} must be a list")
    made = tuple(_candidate(f"{where}, candidates[{i}]", c) for i, c in enumerate(candidates))
    return PoolProblem(
        id=_text(where, "id", value, need=True) or "",
        prompt=_text(where, "prompt", value),
        answer=_text(where, "answer", value),
        level=level,
        candidates=made,
        prompt_tokens=_count(where, "prompt_tokens", value),
        extra=_rest(value, {*_names(PoolProblem), "candidates"}),
    )


def _candidate(where: str, value: object) -> PoolCandidate:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: {type(value).__name__} where an object is wanted")
    for name in ("answer", "correct"):
        if name not in value:
            raise DataError(f"{where}, {name}: is missing; write null where it is not known")
    for name in ("correct", "truncated"):
        if not isinstance(value.get(name), bool | None):
            raise DataError(f"{where}, {name}: {value[name]!r} must be true, false or null")
    steps = value.get("step_scores") or []
    if not isinstance(steps, list):
        raise DataError(f"{where}, step_scores: {steps!r} must be a list of numbers")
    return PoolCandidate(
        text=_text(where, "text", value),
        answer=_text(where, "answer", value),
        tokens=_count(where, "tokens", value),
        correct=value["correct"],
        step_scores=tuple(_share(where, f"step_scores[{i}]", s) for i, s in enumerate(steps)),
        score=None if value.get("score") is None else _share(where, "score", value["score"]),
        truncated=bool(value.get("truncated")),
        extra=_rest(value, set(_names(PoolCandidate))),
    )


def _names(kind: type[T]) -> Iterable[str]:
    return (f.name for f in fields(kind) if f.name not in ("extra", "candidates"))


def _rest(value: Mapping[str, Any], known: set[str]) -> Mapping[str, Any]:
    return {key: content for key, content in value.items() if key not in known} or EMPTY


def _shown(value: Mapping[str, Any], name: str) -> str:
    return repr(value[name])[:60] if name in value else "is missing, and"


def _text(where: str, name: str, value: Mapping[str, Any], *, need: bool = False) -> str | None:
    content = value.get(name)
    if (content is None and not need) or (isinstance(content, str) and (content or not need)):
        return content
    raise DataError(
        f"{where}, {name}: {_shown(value, name)} must be a text{' that is not empty' if need else ' or null'}"
    )


def _count(where: str, name: str, value: Mapping[str, Any]) -> int | None:
    content = value.get(name)
    if content is None or is_whole(content, 0):
        return content
    raise DataError(f"{where}, {name}: {content!r} must be a whole number of at least 0, or null")


def _share(where: str, name: str, content: object) -> float:
    if not is_number(content):
        raise DataError(f"{where}, {name}: {content!r} must be a number from 0 to 1")
    if (share := in_unit(content)) is None:
        raise DataError(
            f"{where}, {name}: {content!r} is outside of 0 to 1; for raw rewards fit a verifiers.Calibration and "
            "record with verifiers.Calibrated, or read the pool with squash='sigmoid' (logits) or 'rank' (--squash)"
        )
    return share
