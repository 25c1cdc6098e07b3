"""A run over recorded samples: what a strategy would choose of them, and how sure it would be. Nothing is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tts_plugins.confidence import support_when_unknown
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.protocols import Model, Run, StopRule, Strategy
from tts_plugins.selection import Aggregate
from tts_plugins.stopping import should_stop
from tts_plugins.types import Candidate, Problem, Reply, Scored

if TYPE_CHECKING:
    from random import Random

    from tts_plugins.pools import PoolProblem

T = TypeVar("T")


def replayed(strategy: Strategy, run: RecordedRun) -> tuple[Scored, float | None]:
    """Return what the strategy chooses of the recorded samples, and its confidence.

    Raises:
        ConfigurationError: the strategy asks for more than whole answers.
        DataError: there are fewer samples on record than it asks for.
    """
    best = _finished(strategy(run, run.problem), strategy)
    if best.id in run.confidences:
        return best, run.confidences[best.id]
    return best, support_when_unknown(run.seen, best).confidence


def _finished(work: Coroutine[Any, Any, T], strategy: Strategy) -> T:
    """Run a coroutine that waits for nothing, since all of its samples are there."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise ConfigurationError(f"{strategy!r} waits for something besides its run, and recorded samples cannot give that")


class RecordedRun(Run):
    """The samples of one problem, in the order of recording.

    Args:
        recorded: the problem.
        model, verifier: names of whose samples and scores they are; None for no verifier.
        aggregate: how step scores become one.

    Attributes:
        seen: the samples that were given out.
        confidences: what the strategy said of its choices, by the candidate's id.
    """

    def __init__(
        self, recorded: PoolProblem, *, model: str, verifier: str | None, aggregate: Aggregate, seed: int = 0
    ) -> None:
        self.problem = recorded.problem()
        self.seen: list[Scored] = []
        self.confidences: dict[str, float | None] = {}
        self._recorded, self._aggregate, self._seed = recorded, aggregate, seed
        self._model: Any = SimpleNamespace(name=model)
        self._verifier: Any = None if verifier is None else SimpleNamespace(name=verifier, aggregate=aggregate)

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def model(self) -> Model:
        model: Model = self._model
        return model

    @property
    def verifier(self) -> Any:
        return self._verifier

    @property
    def rng(self) -> Random:
        self._refuse("random numbers")

    async def sample(
        self, problem: Problem, n: int, *, stop: StopRule | None = None, model: Model | None = None, **how: Any
    ) -> AsyncIterator[Scored]:
        if model is not None and model is not self._model:
            self._refuse("samples of another model")
        first = len(self.seen)
        records = self._recorded.candidates[first : first + n]
        if len(records) < n:
            raise DataError(
                f"problem {self._recorded.id!r} has {len(self._recorded.candidates)} samples on record, and the "
                f"strategy asks for {first + n}; lower its n, or record more"
            )
        own: list[Scored] = []
        for place, record in enumerate(records):
            own.append(self._scored(record, first + place))
            self.seen.append(own[-1])
            yield own[-1]
            if should_stop(stop, own, n - place - 1):
                return

    def _scored(self, record: Any, index: int) -> Scored:
        score = None if self._verifier is None else record.scored(self._aggregate)
        if self._verifier is not None and score is None:
            raise DataError(f"problem {self._recorded.id!r}, candidates[{index}]: it has no score on record")
        return Scored(
            self.problem, text=record.text or record.answer or "", answer=record.answer, tokens=record.tokens,
            truncated=record.truncated, finished=True, score=score, index=index, output=record,
        )  # fmt: skip

    def expand(
        self, candidates: Sequence[Candidate], total: int, *, lookahead: int = 0, straggler: float | None = None
    ) -> AsyncIterator[Scored]:
        self._refuse("single steps")

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        self._refuse("revisions")

    async def generate(self, model: Model, problem: Problem, n: int = 1) -> Reply:
        self._refuse("a model's answers")

    async def together(self, parts: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        return [await part for part in parts]

    def prune(self, candidates: Sequence[Candidate]) -> None:
        """Do nothing: there is no trace."""

    async def room(self, problem: Problem, at_most: int, *, model: Model | None = None) -> int:
        return at_most

    def note(self, kind: str, **data: Any) -> None:
        if kind == "choice":
            self.confidences[data["candidate"]] = data.get("confidence")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"the strategy asks for {what}, which a pool of whole answers does not have; solve the problems with it, "
            "and use Abstention.fit(confidences, right)"
        )
