"""What the parts ask of each other. Any object with these methods serves; nothing has to be inherited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

from tts_plugins.budget import Bound, Limits
from tts_plugins.types import Candidate, Problem, Reply, Score, Scored

if TYPE_CHECKING:
    from random import Random

Role = Literal["model", "verifier"]
T = TypeVar("T")


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
class StepModel(Model, Protocol):
    """A model that can write one further step of a solution, which searches need."""

    @property
    def separator(self) -> str:
        """The text between two steps."""
        ...

    async def prepare(self, run: Run) -> None:
        """Learn how the server continues a text, where that is not known; called before a step that has some before it.

        What it asks goes through `run.generate`, within the budget.
        """
        ...

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound | None:
        """The worst that one further step can cost, after `ahead` others that are not written yet."""
        ...

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        """One request for as many next steps of the candidate as there are seeds; at temperature 0 where `greedy`.

        A generation's text is the step alone, without separators. Its `finish_reason` is "step" where more may follow,
        "length" where a limit cut it, anything else where the model ended by itself; a text of blanks ends it too.

        Raises:
            ModelError: of the kind that says whether to retry and what to charge.
        """
        ...


@runtime_checkable
class ReviseModel(Model, Protocol):
    """A model that can better its answers, given earlier ones and what was said of them."""

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound | None:
        """The worst that one revision can cost.

        Raises:
            ConfigurationError: it cannot revise; the text says what to give it.
        """
        ...

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """One request for as many revisions as there are seeds; `history` has the latest attempt last.

        With `merge`, the attempts were made apart from each other, and the best of all is to go into a new one.

        Raises:
            ModelError: of the kind that says whether to retry and what to charge.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """Scores one candidate at a time; its model calls go through `run.generate`.

    One whose `score` waits for nothing and takes microseconds may say so by an attribute `inline = True`: candidates
    are then scored where they come in, one after the other, without a task for each. One whose coroutine blocks (it
    calls a synchronous client, or computes for long) says so by `blocking = True`, and runs on a thread: else all
    solves on its event loop would wait for it.
    """

    @property
    def name(self) -> str: ...

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """The worst that scoring one candidate of up to `tokens` tokens can cost (`budget.FREE` if local)."""
        ...

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The score in [0, 1].

        Raises:
            VerifierError: no score could be had; the candidate fails, and the cause is in the trace.
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


def is_model(value: object) -> TypeGuard[Model]:
    """`isinstance` of the protocol, which is slow: every search asks."""
    return all([hasattr(value, name) for name in _MODEL])


def is_verifier(value: object) -> TypeGuard[Verifier]:
    """The same for `Verifier`."""
    return all([hasattr(value, name) for name in _VERIFIER])


def is_set_verifier(value: object) -> TypeGuard[SetVerifier]:
    """The same for `SetVerifier`."""
    return all([hasattr(value, name) for name in _SET_VERIFIER])


def _members(protocol: type) -> tuple[str, ...]:
    # The rarest first: most objects of other kinds have a name.
    return tuple(sorted((n for n in dir(protocol) if not n.startswith("_")), key=lambda n: n == "name"))


_MODEL, _VERIFIER, _SET_VERIFIER = _members(Model), _members(Verifier), _members(SetVerifier)


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
        self,
        problem: Problem,
        n: int,
        *,
        stop: StopRule | None = None,
        wave: int | None = None,
        model: Model | None = None,
    ) -> AsyncIterator[Scored]:
        """Up to `n` whole solutions, generated and scored, as they arrive; of another `model` where one is given.

        It ends early when `stop` says so, when the budget has no room for more, or at the deadline; what is in
        flight then is cancelled and charged. Candidates that fail are left out, and stand in the trace.

        Raises:
            BudgetExhausted, DeadlineExceeded, AllCandidatesFailed: there is not one candidate.
        """
        ...

    def expand(
        self, candidates: Sequence[Candidate], total: int, *, lookahead: int = 0, straggler: float | None = None
    ) -> AsyncIterator[Scored]:
        """One further step: `total` children, shared evenly over the candidates, generated and scored as they arrive.

        Where they do not share evenly, the first candidates have one child more. A candidate may stand there several
        times. `Candidate(problem)` has no step yet. Equal texts are scored once. With `lookahead`, that many further
        steps are written greedily, and the child takes the score at their end. With `straggler`, once half of the
        children are there, those that take more than that many times the median child's time are cancelled, and
        charged as cancelled calls are.

        It yields fewer when the budget or the time ends; children that fail are left out, and stand in the trace.

        Raises:
            ConfigurationError: the model writes no steps, or the verifier gives no step scores.
            BudgetExhausted, DeadlineExceeded, AllCandidatesFailed: there is not one child.
        """
        ...

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        """One better answer, given earlier ones (the latest last) with their feedback; scored.

        With `merge`, they were made apart from each other, and are to be merged.

        Raises:
            ConfigurationError: the model revises nothing.
            BudgetExhausted, DeadlineExceeded, AllCandidatesFailed: it could not be had.
        """
        ...

    async def together(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """What the parts of a strategy return that run side by side, in order; the first to fail ends all."""
        ...

    def prune(self, candidates: Sequence[Candidate]) -> None:
        """Say that these are not followed any further: for the trace."""
        ...

    async def room(self, problem: Problem, at_most: int, *, model: Model | None = None) -> int:
        """How many more whole solutions the budget is sure to pay for, verification included; `at_most` at most.

        Each is taken at its bound, so that more may come in the end where tokens or money are limited. Another `model`
        is asked instead of the run's where one is given.

        Raises:
            UnboundedCallError, UnknownPriceError: a limit cannot hold over that model.
        """
        ...

    @property
    def rng(self) -> Random:
        """Random numbers that follow from the run's seed."""
        ...

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        """A request to any model, for verifiers: within the budget, with retries, in the trace.

        Raises:
            BudgetExhausted, DeadlineExceeded, ModelError: it could not be had.
        """
        ...

    def note(self, kind: str, **data: Any) -> None:
        """Record an event in the trace; `data` must be JSON-serialisable.

        A "stop" says that a stop rule of the strategy ended the search, and becomes the result's `stopped`. These are
        no events, but become part of the result: a "choice" of `candidate`, `confidence` and `agreement` says how sure
        the strategy is of the candidate that it returns; a "threshold" says `below` which confidence its answer is to
        be withheld, unless the caller says another.
        """
        ...


class Strategy(Protocol):
    """How compute is spent on one problem. A policy is one too: it decides, and delegates under the same run."""

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        """The chosen candidate, made only through the methods of `run`."""
        ...
