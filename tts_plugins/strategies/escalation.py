"""What to do with a question whose answer is not sure enough: ask a larger model, or spend more on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tts_plugins._internal.config import check_flag
from tts_plugins.confidence import Support, support_when_unknown
from tts_plugins.errors import OVER, AllCandidatesFailed, CandidateError, ConfigurationError, ModelError, VerifierError
from tts_plugins.protocols import Model, Run, Strategy, is_model
from tts_plugins.runs import ForwardingRun, OtherModelRun, passed_on
from tts_plugins.strategies._choice import note_choice
from tts_plugins.strategies.beam_search import BeamSearch
from tts_plugins.strategies.best_of_n import BestOfN
from tts_plugins.strategies.dvts import DVTS
from tts_plugins.strategies.particle_filter import ParticleFilter
from tts_plugins.strategies.recursive_aggregation import RecursiveAggregation
from tts_plugins.strategies.revision import Revision
from tts_plugins.strategies.self_consistency import SelfConsistency
from tts_plugins.strategies.tree_search import TreeSearch
from tts_plugins.types import Candidate, Problem, Scored

STEPWISE = (BeamSearch, DVTS, ParticleFilter)
"""Strategies that need a model which writes single steps: adapters refuse them early where there is none."""
REVISING = (Revision, RecursiveAggregation, TreeSearch)
"""Strategies that need a model which can be shown earlier attempts."""


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """Where a question goes that was not answered surely enough. It is paid for by the same budget.

    Args:
        model: another model, mostly a larger one; the model of the solve where left out.
        strategy: how it is asked; one sample where left out. With a `model`, one that asks for whole answers only.
        person: whether a person is to be asked about what is still unsure. The result says so (`Abstained.person`);
            whoever called asks. In an agent of LangChain, `TestTimeScaling` interrupts for it.

    Raises:
        ConfigurationError: nothing is given, or one is not what it should be.
    """

    model: Model | None = None
    strategy: Strategy | None = None
    person: bool = False

    def __post_init__(self) -> None:
        model: Any = self.model
        strategy: Any = self.strategy
        check_flag("Escalation", "person", self.person)
        if model is None and strategy is None and not self.person:
            raise ConfigurationError(
                "Escalation: none of model=, strategy= and person=True is given; give at least one"
            )
        if model is not None and not is_model(model):
            raise ConfigurationError(f"Escalation: model={model!r} is not a model; pass one of tts_plugins.models")
        if strategy is not None and (isinstance(strategy, type) or not callable(strategy)):
            raise ConfigurationError(
                f"Escalation: strategy={strategy!r} is not a strategy; pass an object such as SelfConsistency(n=16)"
            )
        if model is not None and isinstance(strategy, STEPWISE + REVISING):
            raise ConfigurationError(
                f"Escalation: {type(strategy).__name__} asks for steps or revisions, and another model gives whole "
                "answers only; use BestOfN or SelfConsistency"
            )

    @classmethod
    def of(cls, owner: str, value: Any) -> Self:
        """Return the escalation itself, or one to a model, to a strategy, or to a "person".

        Raises:
            ConfigurationError: it is none of these.
        """
        if isinstance(value, cls):
            return value
        if value == "person":
            return cls(person=True)
        if is_model(value):
            return cls(model=value)
        if callable(value) and not isinstance(value, type):
            return cls(strategy=value)
        raise ConfigurationError(
            f"{owner}: escalate={value!r} is neither a model nor a strategy; pass a larger model, a strategy such as "
            "SelfConsistency(n=32), 'person', or Escalation(model=…, strategy=…)"
        )

    def __str__(self) -> str:
        parts = [self.model.name if self.model is not None else "", "" if self.strategy is None else f"{self.strategy}"]
        return " with ".join(filter(None, parts))

    @property
    def asks(self) -> bool:
        """Whether anything is asked within the solve."""
        return self.model is not None or self.strategy is not None

    async def after(self, first: Strategy, below: float | None, run: Run, problem: Problem) -> Scored:
        """Return what the strategy `first` chooses if that is sure enough, else what the escalation chooses.

        Args:
            below: the least confidence with which the choice stands; None takes what the strategy itself says.
        """
        if self.model is not None:  # raises where a limit cannot hold over it, before anything is paid for
            await run.room(problem, 1, model=self.model)
        single = SelfConsistency(n=1) if run.verifier is None else BestOfN(n=1)

        def settled(_: int, best: Scored, heard: HeardRun) -> bool:
            least, (confidence, escalated) = heard.below if below is None else below, heard.sureness(best)
            stands = sure_enough(confidence, least, escalated=escalated)
            if not stands:
                run.note("escalated", confidence=confidence, below=least, to=str(self))
            return stands

        return await climb(
            run,
            (
                lambda heard: first(heard, problem),
                lambda heard: (self.strategy or single)(OtherModelRun(heard, self.model), problem),
            ),
            (True, self.model is not None),
            settled,
        )


def sure_enough(confidence: float | None, below: float | None, *, escalated: bool) -> bool:
    """Return whether a choice of this confidence stands; None or 0 for `below` lets all stand.

    A single answer of a larger model has no confidence: that the model was asked is what speaks for it.
    """
    return not below or (escalated if confidence is None else confidence >= below)


class HeardRun(ForwardingRun):
    """Passes everything on, and remembers how sure a strategy is; doubts are held back until its choice stands."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.below: float | None = None
        self.asked = True  # whether anything was asked for: a rung may have only the samples that it was given
        self.choices: dict[str, dict[str, Any]] = {}  # by candidate, what was said of its choice
        self._doubts: list[dict[str, Any]] = []
        self._seen: list[Scored] = []

    def sample(self, problem: Problem, n: int, **how: Any) -> AsyncIterator[Scored]:
        return passed_on(super().sample(problem, n, **how), self._seen.append)

    def expand(self, candidates: Sequence[Candidate], total: int, **how: Any) -> AsyncIterator[Scored]:
        return passed_on(super().expand(candidates, total, **how), self._seen.append)

    async def revise(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Scored:
        self._seen.append(found := await super().revise(problem, history, merge=merge))
        return found

    def note(self, kind: str, **data: Any) -> None:
        if kind == "doubt":
            self._doubts.append(data)
            return
        if kind == "choice":
            self.choices.setdefault(data["candidate"], {}).update(data)
        elif kind == "threshold":
            self.below = data["below"]
        super().note(kind, **data)

    def sureness(self, best: Scored, among: Sequence[Scored] = ()) -> tuple[float | None, bool]:
        """Return the confidence of a choice, and whether a larger model made it.

        Args:
            among: what it was chosen from, where that is more than what was asked for. A strategy of the user's may
                say nothing of its choice.
        """
        among = among or self._seen
        unknown = support_when_unknown(among, best) if best in among else Support(best.score)
        said = self.choices.get(best.id, {"confidence": unknown.confidence})
        return said.get("confidence"), bool(said.get("escalated"))

    def tell_doubts(self) -> None:
        """Pass on what makes the choice doubtful."""
        for data in self._doubts:
            self._run.note("doubt", **data)


async def climb(
    run: Run,
    asks: Sequence[Callable[[HeardRun], Awaitable[Scored]]],
    anew: Sequence[bool],
    settled: Callable[[int, Scored, HeardRun], bool],
) -> Scored:
    """Ask one after the other, from cheap to dear, until a choice settles the problem.

    Where the next one cannot be paid for, or fails, the choice of the one before stands. Where there is none yet, the
    next that may fare better is asked.

    Args:
        asks: each makes a choice through the run that it is given.
        anew: whether each asks another model than the one before, or asks it otherwise, and so may fare better.
        settled: whether the choice of the ask of this number stands; the last one's does.
    """
    best: Any = None
    standing: HeardRun | None = None
    failed = list[str]()
    for number, ask in enumerate(asks):
        if failed and standing is None and not anew[number]:
            continue
        # The solve says what is wrong with a choice that is something else.
        if standing is not None and (not isinstance(best, Scored) or settled(number - 1, best, standing)):
            break
        try:
            found = await ask(heard := HeardRun(run))
        except (*OVER, ModelError) as error:
            if standing is None and not (_of_the_model(error) and any(anew[number + 1 :])):
                for each in failed:
                    error.add_note(f"before it, another model was asked and failed: {each}")
                raise
            failed.append(f"{type(error).__name__}: {error}")
            run.note("rung_failed" if standing is None else "escalation_failed", error=failed[-1])
            if standing is not None:
                break
        else:
            best, standing = found, heard
            if number and isinstance(found, Scored):
                _note_escalated(run, found, heard)
    if standing is not None:
        standing.tell_doubts()  # those of choices that others followed are settled
    chosen: Scored = best
    return chosen


def _note_escalated(run: Run, found: Scored, heard: HeardRun) -> None:
    if found.id not in heard.choices:
        note_choice(run, found, Support(found.score))
    if heard.asked:
        run.note("choice", candidate=found.id, escalated=True)


def _of_the_model(error: Exception) -> bool:
    """Return whether another model may answer where this one failed.

    It may not where the money or the time is gone, a verifier failed, or the account or a setting is wrong.
    """
    causes = error.errors if isinstance(error, AllCandidatesFailed) and not error.unscored else (error,)
    return not any(
        isinstance(each, VerifierError) or not isinstance(each, CandidateError) or getattr(each, "fatal", False)
        for each in causes
    )
