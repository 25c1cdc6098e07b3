"""Read a pool's file: each line is checked, and an error names the file, the line and the field."""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from tts_plugins._internal.files import json_objects
from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.errors import DataError
from tts_plugins.pools._records import FORMAT, VERSION, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.types import EMPTY

T = TypeVar("T", bound="PoolCandidate | PoolProblem | PoolHeader")


def read_file(path: Path, squash: str | None) -> tuple[PoolHeader, tuple[PoolProblem, ...]]:
    """Return the header and the problems of a file; see `Pool.read`."""
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
    return header, tuple(problems)


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return json_objects(path, "`tts-plugins record` makes a pool")


SQUASHES = ("sigmoid", "rank")


def _squashed(lines: Iterator[tuple[int, Mapping[str, Any]]], how: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Bring the raw scores of all lines into [0, 1]; what is no number is left for the reader to refuse."""
    found = list(lines)
    rows = [c for _, value in found for c in _list(value.get("candidates")) if isinstance(c, dict)]
    known = sorted(s for row in rows for s in (row.get("score"), *_list(row.get("step_scores"))) if _finite(s))

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


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _finite(value: object) -> bool:
    return is_number(value) and abs(value) <= sys.float_info.max


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
    return _made(
        PoolProblem,
        where,
        id=_text(where, "id", value, need=True) or "",
        prompt=_text(where, "prompt", value),
        answer=_text(where, "answer", value),
        level=level,
        candidates=made,
        prompt_tokens=value.get("prompt_tokens"),
        extra=_rest(value, {*_names(PoolProblem), "candidates"}),
    )


def _candidate(where: str, value: object) -> PoolCandidate:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: {type(value).__name__} where an object is wanted")
    for name in ("answer", "correct"):
        if name not in value:
            raise DataError(f"{where}, {name}: is missing; write null where it is not known")
    steps = value.get("step_scores") or []
    if not isinstance(steps, list):
        raise DataError(f"{where}, step_scores: {steps!r} must be a list of numbers")
    text, answer = _text(where, "text", value), _text(where, "answer", value)
    truncated, extra = value.get("truncated"), _rest(value, set(_names(PoolCandidate)))
    return _made(
        PoolCandidate,
        where,
        text=text,
        answer=answer,
        step_scores=tuple(steps),
        truncated=False if truncated is None else truncated,
        extra=extra,
        **{name: value.get(name) for name in ("tokens", "correct", "score")},
    )


def _made(kind: type[T], where: str, **found: Any) -> T:
    """Make a record; what it refuses is said with its place."""
    try:
        return kind(**found)
    except DataError as error:
        raise DataError(f"{where}, {error}") from None


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
