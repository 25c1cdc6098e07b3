"""Makes a `Plan` from what `bench` and `record` are given in flags and files. Nothing here calls a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from tts_plugins._internal.config import check_count
from tts_plugins._internal.files import check_depth, expanded, toml_table
from tts_plugins.answers import AnswerKey
from tts_plugins.bench.grading import Grade, by_answer, by_record
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.problems import ProblemSet, read_problems
from tts_plugins.budget import Budget
from tts_plugins.cli._arguments.build import judge_of
from tts_plugins.cli._arguments.groups import recorded
from tts_plugins.cli._arguments.strategy import settings_of, strategy_of
from tts_plugins.cli._arguments.verifier import answer_of, named, verifier_of
from tts_plugins.errors import ConfigurationError, DataError, TTSError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.pools import Pool
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.strategies import BaseStrategy
from tts_plugins.types import Candidate, Problem

_MODEL = ("name", "base_url", "api_key_env", "temperature", "max_tokens", "system", "price", "threads")
_JUDGE = ("name", "base_url", "api_key_env")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The configuration of a benchmark; the fields are the keys of its file.

    `strategies` and `budgets` are tables by name in a file, and lists of texts on the command line.
    """

    problems: str | None = None
    pool: str | None = None
    limit: int | None = None
    seeds: int | None = None
    verifier: str | None = None
    answer: str | None = None
    grade: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    strategies: Mapping[str, Any] = field(default_factory=dict)
    budgets: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None, **flags: Any) -> Setup:
        """Read a TOML or JSON file, if any; flags override it.

        Raises:
            ConfigurationError: it cannot be read, or has a key that is not known.
        """
        table = {} if path is None else _table(path)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(table) - known):
            raise ConfigurationError(f"{path}: unknown key {unknown[0]!r}; the keys are {', '.join(sorted(known))}")
        for name in ("model", "judge", "strategies", "budgets"):
            if not isinstance(table.get(name, {}), Mapping):
                raise ConfigurationError(f"{path}: {name}={table[name]!r} must be a table")
        for name, keys in (("model", _MODEL), ("judge", _JUDGE)):
            if unknown := sorted(set(table.get(name, {})) - set(keys)):
                raise ConfigurationError(f"{path}: {name}: unknown key {unknown[0]!r}; the keys are {', '.join(keys)}")
            typed = {key: value for key, value in (flags.pop(name, None) or {}).items() if value is not None}
            table[name] = {**table.get(name, {}), **typed}
        return cls(**{**table, **{name: value for name, value in flags.items() if value not in (None, {})}})

    def problem_set(self) -> tuple[ProblemSet, Pool | None]:
        """Read the problems, and the pool that has them if there is one.

        Raises:
            ConfigurationError, DataError: neither a pool nor problems are given, or they cannot be read.
        """
        if (self.problems is None) == (self.pool is None):
            raise ConfigurationError("bench: give either --problems FILE, or --pool FILE of recorded samples")
        if self.problems is not None:
            return read_problems(self.problems, limit=self.limit), None
        pool = Pool.read(str(self.pool))
        chosen = pool.problems[: self.limit]
        return ProblemSet(source=str(self.pool), problems=tuple(p.problem() for p in chosen), grade=by_record), pool

    def checker(self, model: OpenAICompatibleModel | None) -> Verifier | SetVerifier | None:
        """Make the verifier; a judge is the generator where no other model is named."""
        name, address, key = (self.judge.get(field) for field in _JUDGE)
        return verifier_of(
            self.verifier, base_url=self.model.get("base_url"), api_key_env=self.model.get("api_key_env"),
            judge=judge_of(name, base_url=address, api_key_env=key, generator=model),
        )  # fmt: skip

    def reader(self) -> AnswerKey | None:
        """Return how answers are read; None for a pool's own answers, or the usual way."""
        return None if self.answer is None else answer_of(self.answer)

    def plan(self, model: OpenAICompatibleModel | None) -> Plan:
        """Make the plan.

        Raises:
            ConfigurationError, DataError: something does not fit or cannot be read.
        """
        found, pool = self.problem_set()
        check = self.checker(model)
        if pool is None and model is None:
            raise ConfigurationError("bench: problems without a model; give --pool, or a model")
        seeds = self.seeds if self.seeds is not None else 1 if pool is None else 8
        check_count("bench", "seeds", seeds)
        strategies = self.strategies or {"one": "self-consistency:n=1", "self-consistency": "self-consistency:n=8"}
        return Plan(
            problems=found.problems,
            strategies={name: _strategy(name, value, check is not None) for name, value in strategies.items()},
            model=cast(Any, pool if pool is not None else model),
            verifier=check,
            budgets={name: _budget(name, value) for name, value in self.budgets.items()} or {"": None},
            seeds=range(seeds),
            grade=grade_of(self.grade, found.grade),
            answer=self.reader(),
            settings=self.fingerprint(),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return what else the results depend on; Python files by their content."""
        return {
            "sampling": recorded(self.model),
            "verifier_source": _source(self.verifier),
            "grade": _source(self.grade),
            **({} if not self.judge else {"judge": self.judge.get("name")}),
            **({} if self.answer is None else {"answer": _source(self.answer)}),  # as files of older runs have it
        }


def texts(given: Sequence[str] | None) -> dict[str, str]:
    """Use texts as their own names, as on the command line."""
    return {text: text for text in given or ()}


def grade_of(text: str | None, default: Grade) -> Grade:
    """Return the grade function that `--grade` names.

    Raises:
        ConfigurationError: it is not known, or cannot be loaded.
    """
    if text is None:
        return default
    kind, _, rest = text.partition(":")
    if text in ("answer", "recorded"):
        return by_answer if text == "answer" else by_record
    if kind == "python" and ":" in rest:
        found = named(rest, f"--grade {text}")
        if not callable(found) or isinstance(found, type):
            raise ConfigurationError(f"--grade {text}: {rest} is not a function; name one of (problem, candidate)")
        return _checked(cast(Grade, found), f"--grade {text}")
    raise ConfigurationError(f"--grade {text} is not known; use answer, recorded or python:path/file.py:function")


def _checked(grade: Grade, where: str) -> Grade:
    """Wrap a grade function so that its errors name it."""

    def checked(problem: Problem, candidate: Candidate) -> bool | None:
        try:
            return grade(problem, candidate)
        except TTSError:
            raise
        except Exception as error:
            raise DataError(f"{where}: problem {problem.id!r}: {type(error).__name__}: {error}") from error

    return checked


def _strategy(name: str, value: Any, verified: bool) -> Strategy:
    if isinstance(value, Mapping):
        try:
            return BaseStrategy.from_dict(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"strategies.{name}: {error}") from error
    return strategy_of(str(value), {}, verified=verified)


def _budget(name: str, value: Any) -> Budget | None:
    if value == "none":
        return None
    limits = value if isinstance(value, Mapping) else settings_of(str(value).split(","), "--budget")
    if unknown := sorted(set(limits) - {f.name for f in fields(Budget)}):
        raise ConfigurationError(f"budget {name}: unknown limit {unknown[0]!r}; use calls, tokens, usd or seconds")
    return Budget(**limits)


def _source(text: str | None) -> str | None:
    kind, _, rest = (text or "").partition(":")
    path = expanded(rest.rpartition(":")[0])
    if kind == "python" and path.suffix == ".py" and path.is_file():
        return f"{text} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return text


def _table(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return toml_table(expanded(path))
    try:
        table = json.loads(expanded(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check its name") from error
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8; nested too deeply
        raise ConfigurationError(f"{path} is not valid JSON: {error}; correct that place") from error
    check_depth(str(path), table)
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: it holds a {type(table).__name__}, but a table is needed")
    return table
