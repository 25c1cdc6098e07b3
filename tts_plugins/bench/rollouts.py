"""Monte-Carlo rollouts: how often a solution ends right when it is taken up again after each of its steps.

The labels of the seed paper's process verifier (2408.03314, appendix D; Wang et al. 2023, Math-Shepherd): without a
human, the worth of a step is the share of continuations from it that end right. They are kept as a pool, whose
candidates have their `steps` beside `step_scores`; the pool grows by a line for each problem, and what is there is not
made again.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.files import writing
from tts_plugins.answers import AnswerKey, extract
from tts_plugins.bench.grading import equal_answers, truth
from tts_plugins.engine.many import Engine, Handler, LocalEngine, Work
from tts_plugins.engine.solve import solve
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, DataError
from tts_plugins.ledger import Ledger
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem, header_line, problem_line
from tts_plugins.protocols import Run, StepModel
from tts_plugins.steps import join
from tts_plugins.types import Candidate, Problem, Scored

Grade = Callable[[Problem, Candidate], bool | Awaitable[bool | None] | None]


def by_answer(problem: Problem, candidate: Candidate) -> bool | None:
    """Return whether the candidate's answer is the one in `problem.metadata["answer"]`; None if it has no answer."""
    gold = problem.metadata.get("answer")
    return None if candidate.answer is None or gold is None else equal_answers(candidate.answer, str(gold))


@dataclass(kw_only=True)
class _MonteCarlo:
    """A strategy that solves nothing: whole solutions of a problem in steps, and continuations from each step.

    Equal beginnings share their continuations. After a solve, `finished` holds the solutions, and `ends` holds,
    for the text of each beginning, the answers that its continuations reached.
    """

    solutions: int
    rollouts: int
    max_steps: int = 40

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        self.ends: dict[str, list[Scored]] = {}
        root = Candidate(problem)
        self.finished = [end for _, end in await self._to_the_end(run, [root] * self.solutions)]
        separator = run.model.separator if isinstance(run.model, StepModel) else "\n\n"
        begun = {
            (text := join(c.steps[:i], separator)): Candidate(
                problem, text=text, steps=c.steps[:i], logprobs=None, index=c.index
            )
            for c in self.finished
            for i in range(1, len(c.steps))
        }
        starts = [candidate for candidate in begun.values() for _ in range(self.rollouts)]
        for start, end in await self._to_the_end(run, starts) if starts else ():
            self.ends.setdefault(start.text, []).append(end)
        return self.finished[0]

    async def _to_the_end(self, run: Run, starts: Sequence[Candidate]) -> list[tuple[Candidate, Scored]]:
        """Return each start's solutions with it, all written side by side; those that fail or never end are left out.

        Equal texts after one start are one parent, so that one request brings all that follows them.
        """
        begun = {c.id: c for c in starts}
        beams: Sequence[Candidate] = starts
        done = list[tuple[Candidate, Scored]]()
        for _ in range(self.max_steps):
            children = [c async for c in run.expand(beams, total=len(beams))]
            begun |= {c.id: begun[c.parent or ""] for c in children}
            done += [(begun[c.id], c) for c in children if c.finished]
            same = dict[tuple[str, str], Scored]()
            beams = [same.setdefault((begun[c.id].id, c.text), c) for c in children if not c.finished]
            if not beams:
                break
        return done


class RolloutLog:
    """A pool that is written line by line: each is on disk, whole, before the next one is started.

    Raises:
        DataError: the file is another pool, or was made with other settings.
    """

    def __init__(self, path: str | os.PathLike[str], header: PoolHeader) -> None:
        self.path = Path(path)
        if self.path.exists() and self.path.stat().st_size:
            self._cut_what_is_torn()
        if not self.path.exists() or not self.path.stat().st_size:
            self._append(header_line(header))
        self.pool = Pool.read(self.path)
        if (there := self.pool.header) != header:
            raise DataError(
                f"{path}, line 1: it was started with {_differences(there, header)}; use those, or a new file"
            )

    def add(self, problem: PoolProblem) -> None:
        """Append a problem."""
        self._append(problem_line(problem))
        self.pool = replace(self.pool, problems=(*self.pool.problems, problem))

    def _append(self, line: bytes) -> None:
        whole = self.path.stat().st_size if self.path.exists() else 0
        with writing(self.path):
            try:
                with self.path.open("ab") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # what is left of the line is cut off at the next start
                    os.truncate(self.path, whole)
                raise

    def _cut_what_is_torn(self) -> None:
        """Remove half a line that a killed process may have left, which nobody else is still writing."""
        with self.path.open("rb+") as file:
            whole = file.read()
            if whole.startswith(b"{") and not whole.endswith(b"\n"):  # else it is no file of ours, and is refused
                file.truncate(whole.rfind(b"\n") + 1)


async def make_rollouts(
    problems: Sequence[Problem],
    *,
    model: StepModel,
    path: str | os.PathLike[str],
    grade: Grade = by_answer,
    solutions: int = 8,
    rollouts: int = 8,
    max_steps: int = 40,
    concurrency: int = 2,
    seed: int = 0,
    ledger: Ledger | None = None,
    answer: AnswerKey = extract,
    dataset: str = "rollouts",
    on_problem: Callable[[PoolProblem], None] | None = None,
    engine: Engine | None = None,
    recipe: Callable[[], RolloutWork] | None = None,
) -> Pool:
    """Label solutions of these problems by rollouts, and add them to the pool in a file.

    Args:
        problems: with an `id` each.
        model: whose solutions these are; it samples, so not at temperature 0.
        path: of the pool; problems that it has already are left as they are.
        grade: whether a finished solution is right; None if that cannot be read, and it is dropped, as in the paper.
        solutions: sampled for each problem. Why some were left out is kept with it, under `dropped`: truncated,
            unfinished (never ended, or failed), unread (no grade), or unlabelled (nothing that followed was graded).
        rollouts: sampled from each step but the last, whose label is whether the solution is right.
        ledger: an account for all of it; when it is used up, what is there stays.
        engine: where the solves run; here, `concurrency` at a time, if left out.
        recipe: makes the same work on other machines, model and grade included; it is pickled.

    Raises:
        ConfigurationError: a setting is wrong, an id is missing or occurs twice.
        BudgetExhausted: the ledger is used up.
        AllCandidatesFailed: every solution of every problem failed; problems that fail beside others are left out.
        DataError: the file was started with other settings, or `grade` returned what is not a grade.
    """
    for name, value in (("solutions", solutions), ("rollouts", rollouts), ("concurrency", concurrency)):
        check_count("make_rollouts", name, value)
    _check_ids(problems)
    settings = {"solutions": solutions, "rollouts": rollouts, "max_steps": max_steps, "separator": model.separator}
    log = RolloutLog(path, PoolHeader(model=model.name, dataset=dataset, extra={**settings, "seed": seed}))
    there = {p.id for p in log.pool.problems}
    here = RolloutWork(
        model, grade, solutions=solutions, rollouts=rollouts, max_steps=max_steps, seed=seed, answer=answer
    )
    work: Work = here if recipe is None else functools.partial(_made_there, recipe)
    failed: AllCandidatesFailed | None = None
    todo = (problem for problem in problems if problem.id not in there)
    async with contextlib.aclosing((engine or LocalEngine(concurrency)).run(todo, work, ledger=ledger)) as outcomes:
        async for _, made in outcomes:
            if isinstance(made, AllCandidatesFailed):
                failed = made  # the problem is asked again when the file is taken up again
                continue
            if isinstance(made, BudgetExhausted):
                raise BudgetExhausted(f"make_rollouts: {made}; {path} has the problems before")
            if isinstance(made, BaseException):
                raise made
            log.add(made)
            if on_problem is not None:
                on_problem(made)
    if failed is not None and {p.id for p in log.pool.problems} == there:
        raise failed
    return log.pool


@dataclass(frozen=True)
class RolloutWork:
    """The work of rollouts: a job is a problem, and comes to its line of the pool. The fields: see `make_rollouts`."""

    model: StepModel
    grade: Grade = by_answer
    _: KW_ONLY
    solutions: int = 8
    rollouts: int = 8
    max_steps: int = 40
    seed: int = 0
    answer: AnswerKey = extract

    def __call__(self, ledger: Ledger | None) -> Handler:
        """Return the function that labels one problem's solutions."""

        async def one(problem: Problem) -> PoolProblem:
            tree = _MonteCarlo(solutions=self.solutions, rollouts=self.rollouts, max_steps=self.max_steps)
            # By its id, so that problems may be added to a file or change their order.
            own = zlib.crc32(f"{self.seed} {problem.id}".encode())
            result = await solve(
                problem, model=self.model, strategy=tree, seed=own, answer=self.answer, budget=ledger, profile=None
            )
            if result.stopped != "complete":
                raise BudgetExhausted(f"the budget ended at problem {problem.id!r}")
            return await _labelled(problem, tree, self.grade)

        return one


def _made_there(make: Callable[[], RolloutWork], ledger: Ledger | None) -> Handler:
    return make()(ledger)


async def _labelled(problem: Problem, tree: _MonteCarlo, grade: Grade) -> PoolProblem:
    worth, dropped = dict[str, float](), Counter(unfinished=tree.solutions - len(tree.finished))
    for text, ends in tree.ends.items():
        grades = [g for g in [await _graded(grade, problem, end) for end in ends] if g is not None]
        if grades:
            worth[text] = sum(grades) / len(grades)
    candidates = list[PoolCandidate]()
    for c in tree.finished:
        right = await _graded(grade, problem, c)
        begun = [worth.get(text) for text in _beginnings(c)]
        labels = [*(w for w in begun if w is not None), float(right or 0)]
        if right is None or len(labels) != len(c.steps):
            # It cannot be read, or nothing that went on from one of its steps can.
            dropped["truncated" if c.truncated else "unread" if right is None else "unlabelled"] += 1
            continue
        extra: dict[str, Any] = {"steps": [step.text for step in c.steps]}
        if c.logprobs is not None:
            extra["logprobs"] = [round(value, 4) for value in c.logprobs]
        candidates.append(
            PoolCandidate(
                text=c.text, answer=c.answer, tokens=c.tokens, correct=right, step_scores=tuple(labels), extra=extra
            )
        )
    gold = problem.metadata.get("answer")
    return PoolProblem(
        id=problem.id or "", prompt=problem.text, answer=None if gold is None else str(gold),
        candidates=tuple(candidates), extra={"dropped": dict(found)} if (found := +dropped) else {},
    )  # fmt: skip


def _beginnings(candidate: Candidate) -> list[str]:
    """Return the solution's text after each step but the last, unchanged."""
    places, at = list[str](), 0
    for step in candidate.steps[:-1]:
        at = candidate.text.index(step.text, at) + len(step.text)
        places.append(candidate.text[:at])
    return places


async def _graded(grade: Grade, problem: Problem, candidate: Candidate) -> bool | None:
    if candidate.truncated:
        return None
    found = grade(problem, candidate)
    return truth(problem, await found if inspect.isawaitable(found) else found)


def _check_ids(problems: Sequence[Problem]) -> None:
    seen = set[str]()
    for number, problem in enumerate(problems, 1):
        if not problem.id or problem.id in seen:
            what = "has no id" if not problem.id else f"has the id {problem.id!r} of an earlier one"
            raise ConfigurationError(f"make_rollouts: problem {number} {what}; give each its own")
        seen.add(problem.id)


def _differences(there: PoolHeader, wanted: PoolHeader) -> str:
    def flat(header: PoolHeader) -> Mapping[str, Any]:
        return {"model": header.model, "dataset": header.dataset, **header.extra}

    mine, theirs = flat(there), flat(wanted)
    parts = [f"{k}={mine.get(k)!r} (now {theirs.get(k)!r})" for k in {**mine, **theirs} if mine.get(k) != theirs.get(k)]
    return ", ".join(parts) or "another header"
