"""A pool out of a benchmark's store: the samples of one arm, as they were paid for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.protocols import Run
from tts_plugins.types import EMPTY, Problem, Scored

ARM = "samples"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A strategy that takes `n` samples, scored if there is a verifier, and chooses none of them: for recording.

    Raises:
        ConfigurationError: `n` is out of range.
    """

    n: int = 16

    def __post_init__(self) -> None:
        check_count("Samples", "n", self.n)

    def calls(self) -> tuple[int, int]:
        """Return the least and the most generations that it asks for."""
        return (self.n, self.n)

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        samples = [c async for c in run.sample(problem, self.n)]
        return samples[0]


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """What the first line of the pool says beside the model, and each problem's further fields by its id."""

    dataset: str
    licence: str | None = None
    note: str | None = None
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: EMPTY)

    def pool(self, store: Store) -> Pool:
        """Return all problems whose samples are there, in their order."""
        config, candidates = store.config, store.candidates()
        solves = {s.problem: s for s in store.solves()}
        exact = all(s.exact for s in solves.values())
        header = PoolHeader(
            model=str(config["model"]), dataset=self.dataset, licence=self.licence, verifier=config["verifier"],
            tokens="counted" if exact else "estimated: some are bounds", note=self.note,
            extra={"sampling": config["sampling"]},
        )  # fmt: skip
        problems = [
            _problem(p, solves[p.id], candidates.get((p.id, ARM, 0), ()), self.extra.get(p.id, EMPTY))
            for p in store.problems()
            if p.id in solves
        ]
        return Pool(header=header, problems=tuple(problems))


def _problem(p: ProblemRow, solve: SolveRow, rows: Sequence[CandidateRow], extra: Mapping[str, Any]) -> PoolProblem:
    # One request's prompt; with a verifier that is a model the two prompts cannot be separated.
    counted = solve.exact and solve.requests > 0 and solve.verifier_tokens == 0
    if p.messages is not None:
        extra = {"messages": json.loads(p.messages), **extra}
    return PoolProblem(
        id=p.id,
        prompt=p.text,
        answer=p.answer,
        level=int(p.level) if p.level is not None and p.level.isdecimal() else p.level,
        candidates=tuple(_candidate(c) for c in rows),
        prompt_tokens=round(solve.prompt_tokens / solve.requests) if counted else None,
        extra=extra,
    )


def _candidate(c: CandidateRow) -> PoolCandidate:
    return PoolCandidate(
        text=c.text,
        answer=c.answer,
        tokens=c.tokens if c.tokens is not None else len(c.logprobs) or None,
        correct=c.correct,
        step_scores=c.step_scores,
        score=c.score,
        truncated=c.truncated,
        extra={"logprobs": [round(p, 3) for p in c.logprobs]} if c.logprobs else EMPTY,
    )
