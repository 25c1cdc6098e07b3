"""The plan of a benchmark: every strategy within every budget, on every problem, once for each seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tts_plugins._internal.config import Configured
from tts_plugins.answers import AnswerKey
from tts_plugins.bench.grading import Grade, by_answer, by_record
from tts_plugins.bench.regrading import Rows, regraded
from tts_plugins.bench.storage.rows import ProblemRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.protocols import Model, SetVerifier, Strategy, Verifier
from tts_plugins.types import EMPTY, Problem, json_form


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A strategy within a budget: one line of the table."""

    name: str
    strategy: Strategy
    budget: Budget | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a benchmark does.

    Args:
        problems: each with an `id`, unique among them.
        strategies: by name.
        model: the generator; or a pool, whose samples are dealt in an order of their own for each seed.
        verifier: for all strategies.
        budgets: limits for each solve, by name; None for no limit.
        seeds: each problem is solved once for each of them.
        grade: whether a candidate is right; by default the pool's records, else the problem's gold answer. A new grade
            function grades the store's rows again. Two functions cannot be compared, so this happens each time the
            store is opened (and a pool is solved again), unless `settings` has a `grade`: any value that changes with
            the function.
        answer: from a text to the value that votes; a pool's recorded answers, else `extract`, if left out.
        settings: whatever else the results depend on, such as the model's temperature, to detect another
            configuration.

    Raises:
        ConfigurationError: there is nothing to do, or problems without an id.
    """

    problems: Sequence[Problem]
    strategies: Mapping[str, Strategy]
    model: Model | Pool
    verifier: Verifier | SetVerifier | None = None
    budgets: Mapping[str, Budget | None] = field(default_factory=lambda: {"": None})
    seeds: Sequence[int] = (0,)
    grade: Grade | None = None
    answer: AnswerKey | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        for name in ("problems", "strategies", "budgets", "seeds"):
            if not getattr(self, name):
                raise ConfigurationError(f"bench: {name} is empty; give at least one")
        ids = [p.id for p in self.problems]
        if None in ids or len(set(ids)) != len(ids):
            raise ConfigurationError("bench: problems need ids, each its own; pass Problem(…, id=…)")

    @property
    def arms(self) -> list[Arm]:
        """Every strategy within every budget."""
        return [
            Arm(name=f"{name} @ {limit}" if limit else name, strategy=strategy, budget=budget)
            for name, strategy in self.strategies.items()
            for limit, budget in self.budgets.items()
        ]

    def config(self) -> dict[str, Any]:
        """Return all that the results depend on, as JSON."""
        model = self.model
        return {
            "model": model.header.model if isinstance(model, Pool) else model.name,
            "pool": _digest([_pool_row(p) for p in model.problems]) if isinstance(model, Pool) else None,
            "problems": {p.id: _digest([_shown(p.content), p.metadata.get("answer")]) for p in self.problems},
            "arms": {
                a.name: {"strategy": _shown(a.strategy), "budget": None if a.budget is None else a.budget.to_dict()}
                for a in self.arms
            },
            "verifier": None if self.verifier is None else self.verifier.name,
            "seeds": list(self.seeds),
            **({} if self.grade is None else {"grade": _name(self.grade)}),
            **self.settings,
        }

    def rows(self) -> list[ProblemRow]:
        """Return the problems as the store keeps them."""
        return [
            ProblemRow(id=p.id or "", text=p.text, answer=_text(p.metadata.get("answer")),
                       level=_text(p.metadata.get("level")), messages=_conversation(p))
            for p in self.problems
        ]  # fmt: skip

    def open(self, path: str | Path) -> Store:
        """Open the store, new or resumed; see `Store.open`.

        If only the grade has changed, the rows are graded again; on a pool they are solved again.
        """
        replayed = isinstance(self.model, Pool)
        regrade = (lambda _: []) if replayed else self._regraded
        return Store.open(
            path, self.config(), self.rows(), durable=not replayed, regrade=regrade,
            always=self.grade is not None and self.grade not in (by_answer, by_record) and "grade" not in self.settings,
        )  # fmt: skip

    def _regraded(self, store: Store) -> list[Rows]:
        problems = {p.id or "": p for p in self.problems}
        return regraded(problems, store.solves(), store.candidates(), self.grade or by_answer)


def _name(grade: Grade) -> str:
    """Name a function for people to read; two lambdas have the same name."""
    return f"{getattr(grade, '__module__', '')}.{getattr(grade, '__qualname__', type(grade).__qualname__)}"


def _shown(value: Any) -> Any:
    if isinstance(value, Configured):
        return value.to_dict()
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return repr(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _pool_row(p: PoolProblem) -> object:
    return [p.id, [[c.answer, c.tokens, c.correct, c.score, list(c.step_scores)] for c in p.candidates]]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:16]


def _conversation(problem: Problem) -> str | None:
    """Return a problem's messages as JSON, where its text does not say all of them."""
    try:
        said = problem.messages
    except ConfigurationError:  # a chain's input
        return None
    whole = [(m.get("role"), m.get("content")) for m in said] != [("user", problem.text)]
    return json.dumps(json_form(said)) if whole else None
