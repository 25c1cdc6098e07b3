"""What the parts ask of each other. Any object with these methods serves; nothing has to be inherited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from tts_plugins.budget import Bound, Limits
from tts_plugins.types import Candidate, Problem, Reply, Score, Scored

Role = Literal["model", "verifier"]


@runtime_checkable
class Model(Protocol):
    """The generator: an adapter around somebody's client, chain, module or function.

    It makes one attempt at a time and knows nothing of budgets, retries or deadlines.
    """

    @property
    def name(self) -> str:
        """As it appears in traces and errors."""
        ...

    @property
    def limits(self) -> Limits:
        """What its server bears."""
        ...

    @property
    def batch(self) -> int:
        """How many choices one request may ask for; it may change as the server shows what it honours."""
        ...

    async def bound(self, problem: Problem) -> Bound | None:
        """The worst that one generation can cost; None for a metered model, whose framework reserves by itself."""
        ...

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """One request for as many choices as there are seeds; fewer may come back.

        Raises:
            ModelError: of the kind that says whether to retry and what to charge.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """Scores one candidate at a time; its model calls go through `run.generate`."""

    @property
    def name(self) -> str: ...

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """The worst that scoring one candidate of up to `tokens` tokens can cost (`budget.FREE` if local)."""
        ...

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The score in [0, 1].

        Raises:
            VerifierError: no score could be had; the candidate is lost, and the cause is in the trace.
        """
        ...


@runtime_checkable
class SetVerifier(Protocol):
    """Scores candidates against each other, so it waits for all of them."""

    @property
    def name(self) -> str: ...

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """The worst that scoring can cost, for each candidate of up to `tokens` tokens."""
        ...

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        """One score for each candidate, in order."""
        ...


class StopRule(Protocol):
    """Decides from what has been seen that more is not worth it."""

    def __call__(self, seen: Sequence[Scored], left: int) -> bool:
        """Whether to stop, with `seen` in order of arrival and at most `left` more to come."""
        ...

    def least(self, seen: Sequence[Scored], left: int) -> int:
        """The least number of further candidates after which it could stop: the first wave's size."""
        ...


class Run(Protocol):
    """The context of one solve, and the only way to a model or a verifier."""

    @property
    def seed(self) -> int: ...

    @property
    def model(self) -> Model: ...

    @property
    def verifier(self) -> Verifier | SetVerifier | None: ...

    def sample(
        self, problem: Problem, n: int, *, stop: StopRule | None = None, wave: int | None = None
    ) -> AsyncIterator[Scored]:
        """Up to `n` whole solutions, generated and scored, as they arrive.

        It ends early when `stop` says so, when the budget has no room for more, or at the deadline; what is in
        flight then is cancelled and charged. Candidates that fail are left out, and stand in the trace.

        Raises:
            BudgetExhausted, DeadlineExceeded, AllCandidatesFailed: there is not one candidate.
        """
        ...

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        """A request to any model, for verifiers: within the budget, with retries, in the trace.

        Raises:
            BudgetExhausted, DeadlineExceeded, ModelError: it could not be had.
        """
        ...

    def note(self, kind: str, **data: Any) -> None:
        """An event for the trace; `data` must be JSON-serialisable."""
        ...


class Strategy(Protocol):
    """How compute is spent on one problem. A policy is one too: it decides, and delegates under the same run."""

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        """The chosen candidate, made only through the methods of `run`."""
        ...
