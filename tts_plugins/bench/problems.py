"""The problems of a benchmark with their gold answers, from files, data sets or generators."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from tts_plugins._internal.config import check_count
from tts_plugins._internal.files import check_row, expanded, json_objects
from tts_plugins.answers import extract
from tts_plugins.bench.grading import Grade, by_answer
from tts_plugins.errors import ConfigurationError, DataError, MissingExtraError
from tts_plugins.types import Candidate, Problem

# The columns that public data sets use, best first.
_PROMPTS = ("prompt", "problem", "question", "input")
_ANSWERS = ("answer", "solution", "target", "output")
_KNOWN = ("id", "prompt", "messages", "answer", "level")


@dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """Problems under one name. Each has an `id`, and in its metadata `answer`, `level` and what else was with it.

    Attributes:
        source: the name that they were read by.
        grade: whether a candidate is right, for problems that grade their own answers.
    """

    source: str
    problems: tuple[Problem, ...]
    grade: Grade = by_answer


def read_problems(source: str, *, limit: int | None = None, seed: int = 0) -> ProblemSet:
    """Read the problems that a source names.

    Args:
        source: a JSONL file, one problem a line: `{"prompt" or "messages", "id"?, "answer"?, "level"?, …}`;
            `hf:NAME[:CONFIG[:SPLIT]]`, a data set of the Hugging Face hub or a folder of one (the split is "test"
            if left out); or `gym:TASK`, a generator of reasoning-gym, which grades its own answers.
        limit: the first so many; 50 by default for generators.
        seed: of generators.

    Raises:
        ConfigurationError: no such data set or task.
        MissingExtraError: `datasets` or `reasoning-gym` is not installed.
        DataError: the file cannot be read, or a line is malformed; names file, line and field.
    """
    if limit is not None:
        check_count("problems", "limit", limit)
    kind, _, rest = source.partition(":")
    if kind == "hf" and rest:
        return ProblemSet(source=source, problems=_set(source, islice(_hub(rest), limit)))
    if kind == "gym" and rest:
        return _gym(source, rest, 50 if limit is None else limit, seed)
    path = expanded(source)
    return ProblemSet(source=source, problems=_set(source, islice(_file(path), limit)))


def _set(source: str, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    made = tuple(problems)
    if not made:
        raise DataError(f"{source}: there are no problems in it")
    seen: set[str | None] = set()
    for p in made:
        if p.id in seen:
            raise DataError(f"{source}, id: {p.id!r} occurs twice; give each problem its own")
        seen.add(p.id)
    return made


def _file(path: Path) -> Iterator[Problem]:
    for number, value in json_objects(path):
        yield _line(f"{path}, line {number}", value, number)


def _line(where: str, value: Mapping[str, Any], number: int) -> Problem:
    if ("prompt" in value) == ("messages" in value):
        raise DataError(f'{where}, prompt: give either "prompt", a text, or "messages", a list of chat messages')
    field = "prompt" if "prompt" in value else "messages"
    content = value[field]
    if not isinstance(content, str if field == "prompt" else list) or not content:
        wanted = "a text that is not empty" if field == "prompt" else "a list of chat messages"
        raise DataError(f"{where}, {field}: {content!r:.60} must be {wanted}")
    name = value.get("id", number)
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise DataError(f"{where}, id: {name!r} must be a text or a whole number")
    check_row(where, value)
    rest = {key: item for key, item in value.items() if key not in _KNOWN}
    try:
        return _problem(str(name), content, value.get("answer"), value.get("level"), rest)
    except ConfigurationError as error:
        raise DataError(f"{where}, {field}: {error}") from error


def _problem(name: str, content: Any, answer: object, level: object, rest: Mapping[str, Any]) -> Problem:
    gold = answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return Problem(content, id=name, metadata={**rest, "answer": gold, "level": level})


def _hub(text: str) -> Iterator[Problem]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError(
            "problems of the Hugging Face hub need `datasets`: pip install 'tts-plugins[bench]'"
        ) from (error)
    name, config, split = [*text.split(":"), "", ""][:3]
    try:
        rows = cast(Iterable[Mapping[str, Any]], load_dataset(name, config or None, split=split or "test"))
    except (ValueError, OSError) as error:  # what it raises for a set, configuration or split that is not there
        raise ConfigurationError(f"problems=hf:{text}: {' '.join(str(error).split())}") from error
    for number, row in enumerate(rows):
        prompt, answer = _column(row, _PROMPTS), _column(row, _ANSWERS)
        if prompt is None:
            raise DataError(f"hf:{text}, row {number}: none of {', '.join(_PROMPTS)} is among {', '.join(row)}")
        gold = row[answer] if answer is not None else None
        # Some sets give a worked solution in place of the answer: what it ends with is the answer.
        gold = (extract(gold) or gold) if isinstance(gold, str) else gold
        yield _problem(str(row.get("id") or row.get("unique_id") or number), row[prompt], gold, row.get("level"), {})


def _column(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if row.get(name) not in (None, "")), None)


def _gym(source: str, task: str, size: int, seed: int) -> ProblemSet:
    try:
        import reasoning_gym
    except ImportError as error:
        raise MissingExtraError(f"problems={source} needs `reasoning-gym`: pip install 'tts-plugins[bench]'") from error
    try:
        made = reasoning_gym.create_dataset(task, size=size, seed=seed)
    except ValueError as error:
        raise ConfigurationError(f"problems={source}: {error}") from error
    entries: dict[str, Any] = {f"{task}-{seed}-{i}": made[i] for i in range(size)}
    score = cast(Callable[..., float], made.score_answer)

    def grade(problem: Problem, candidate: Candidate) -> bool | None:
        return score(answer=candidate.answer, entry=entries[problem.id or ""]) >= 1.0

    problems = (_problem(key, entry["question"], entry["answer"], None, {}) for key, entry in entries.items())
    return ProblemSet(source=source, problems=_set(source, problems), grade=grade)
