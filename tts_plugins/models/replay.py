"""A pool's recorded samples, served as a model serves new ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import ConfigurationError, RequestRefused
from tts_plugins.pools import Pool, PoolCandidate, PoolProblem
from tts_plugins.types import Generation, Problem, Reply, Usage


class RecordedText(str):
    """A replayed text that knows its record: an answer key sees nothing but the text."""

    recorded: PoolCandidate

    @property
    def blank(self) -> bool:
        """Whether the record says nothing."""
        return self.recorded.blank

    def __new__(cls, recorded: PoolCandidate) -> RecordedText:
        text = super().__new__(cls, recorded.text or recorded.answer or "")
        text.recorded = recorded
        return text


def recorded_answer(text: str) -> str | None:
    """Return the answer on record, as the `answer=` of `solve`; None for a text that is not from a pool."""
    return text.recorded.answer if isinstance(text, RecordedText) else None


class ReplayModel:
    """Serves the samples of a pool, in a shuffled order, each once for every `Problem` object.

    Args:
        pool: recorded samples; a problem is found by its id, else by its text.
        seed: fixes the order of each problem's samples; None keeps that of the recording.
        name: as it appears in traces; the recorded model's if left out.

    Usage is as recorded: a call and the sample's tokens, the prompt's once a request if they were counted. A
    candidate's `output` is the `PoolCandidate`, whose scores a `RecordedVerifier` reads. Pass
    `answer=recorded_answer` to `solve`, so that votes go by the recorded answers.

    Solving the same `Problem` object again goes on where it stopped; `PoolProblem.problem()` makes a fresh one.
    """

    def __init__(self, pool: Pool, *, seed: int | None = 0, name: str | None = None) -> None:
        if not isinstance(pool, Pool):
            raise ConfigurationError(f"ReplayModel: pool={pool!r} is not a Pool; read one with Pool.read(path)")
        self.name = name or f"replay of {pool.header.model}"
        self.limits = Limits()
        self.batch = max((len(p.candidates) for p in pool.problems), default=1) or 1
        self.refused = 0  # requests for a sample that the pool no longer had
        self._pool, self._seed = pool, seed
        self._by_id = {p.id: p for p in pool.problems}
        self._by_prompt = {p.prompt: p for p in pool.problems if p.prompt}
        self._left: WeakKeyDictionary[Problem, list[PoolCandidate]] = WeakKeyDictionary()

    @once_made
    def __repr__(self) -> str:
        return f"ReplayModel({self.name}, seed={self._seed})"

    async def bound(self, problem: Problem) -> Bound:
        """Return the most tokens that any sample of the problem has; without a bound if they were not counted."""
        found = self._find(problem)
        tokens = [c.counted for c in found.candidates]
        most = None if None in tokens else max((t for t in tokens if t is not None), default=0)
        return Bound(prompt_tokens=found.prompt_tokens or 0, completion_tokens=most)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Return the next samples, one for each seed; fewer if fewer are left.

        Raises:
            RequestRefused: all samples of the problem are given out.
            ConfigurationError: the pool does not have the problem.
        """
        found = self._find(problem)
        left = self._left.get(problem)
        if left is None:
            left = self._left[problem] = self._deal(found)
        if not left:
            self.refused += 1
            raise RequestRefused(
                f"{self.name}: all {len(found.candidates)} samples of problem {found.id!r} are given out; lower n, "
                "or record more"
            )
        given = [left.pop() for _ in range(min(len(seeds), len(left)))]
        return Reply(
            generations=tuple(_generation(c) for c in given),
            usage=Usage(
                calls=len(given),
                requests=1,
                prompt_tokens=found.prompt_tokens or 0,
                completion_tokens=sum(c.tokens or 0 for c in given),
                exact=self._pool.exact_tokens and all(c.counted is not None for c in given),
            ),
        )

    def _find(self, problem: Problem) -> PoolProblem:
        found = self._by_id.get(problem.id or "") or self._by_prompt.get(problem.text)
        if found is None:
            shown = repr(problem.id) if problem.id is not None else repr(problem.text[:60])
            raise ConfigurationError(f"{self.name}: the pool has no problem {shown}; ask one of its own")
        return found

    def _deal(self, found: PoolProblem) -> list[PoolCandidate]:
        order = list(found.candidates)
        if self._seed is not None:
            random.Random(f"{self._seed}/{found.id}").shuffle(order)
        return order[::-1]  # it is given out from the end


def _generation(recorded: PoolCandidate) -> Generation:
    return Generation.made(
        RecordedText(recorded),
        output=recorded,
        finish_reason="length" if recorded.truncated else "stop",
        tokens=recorded.counted,
        logprobs=tuple(map(float, recorded.extra["logprobs"])) if recorded.extra.get("logprobs") else None,
    )
