"""One ladder of compute: a few cheap answers first; more samples, more effort or a larger model where they disagree.

Source: model cascades that go by the agreement of the weaker model's answers (Yue et al. 2023, 2310.03094).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from tts_plugins._internal.config import check_flag, check_share
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies._base import Part
from tts_plugins.policies._resumed_run import SeededRun
from tts_plugins.policies.difficulty import OF_SCORES, SIGNALS, Signal, predicted
from tts_plugins.protocols import Model, Run, is_model
from tts_plugins.stopping import ShippedRule
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency
from tts_plugins.strategies.escalation import HeardRun, climb
from tts_plugins.types import Problem, Scored

# The share of the answers that agree, or the score, at which a ladder ends that was not fitted.
_ENOUGH: Mapping[str, float] = {"careful": 1.0, "balanced": 0.75, "bold": 0.6}
_OF_SEVERAL = ("agreement", "entropy")  # one answer always agrees with itself
_CONFIDENCE: Literal["confidence"] = "confidence"


@dataclass(frozen=True, kw_only=True)
class Rung(Part):
    """One step of a ladder.

    Args:
        strategy: how this rung samples. `BestOfN` or `SelfConsistency` where it asks another model.
        model: the model to ask: its name, or the model itself; None for the one of the run. In an adapter, what that
            adapter wraps serves too: a chain, an LM.
        effort: the reasoning effort to ask for, as the server knows it: "low", "medium", "high", sent as
            `reasoning_effort`; or the arguments of the call that ask for it, where that is said otherwise, such as
            `{"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}` for vLLM.
        price: what a token costs here, in tokens of the first rung: for fits and tables.
        enough: how easy the problem must look after this rung for the ladder to end; the ladder's own if left out.
        beside: choose among the samples of the earlier rungs too, though another model gave them. A rung that asks the
            same model at the same effort always goes on from them; its `n` then counts all of them.

    Raises:
        ConfigurationError: a field is out of range, or the strategy does not suit another model.
    """

    strategy: BaseStrategy
    model: Any = None
    effort: str | Mapping[str, Any] | None = field(default=None, hash=False)
    price: float = 1.0
    enough: float | None = None
    beside: bool = False

    def __post_init__(self) -> None:
        check_flag("Rung", "beside", self.beside)
        if self.enough is not None:
            check_share("Rung", "enough", self.enough)
        if self.effort is not None and (not isinstance(self.effort, str | Mapping) or not self.effort):
            raise ConfigurationError(
                f"Rung: effort={self.effort!r} must be a text such as 'high', or the arguments that ask for it"
            )
        if isinstance(self.effort, Mapping):
            object.__setattr__(self, "effort", dict(self.effort))
        if isinstance(self.price, bool) or not isinstance(self.price, int | float) or not 0 < self.price < float("inf"):
            raise ConfigurationError(f"Rung: price={self.price!r} must be a number above 0, such as 8")
        if not isinstance(self.strategy, BaseStrategy):
            raise ConfigurationError(
                f"Rung: strategy={self.strategy!r} is not a strategy, such as SelfConsistency(n=3)"
            )
        if (self.model, self.effort) != (None, None) and not isinstance(self.strategy, BestOfN | SelfConsistency):
            raise ConfigurationError(
                f"Rung: strategy={self.strategy!r} is neither BestOfN nor SelfConsistency; another model, or another "
                "effort, gives whole answers only"
            )

    @property
    def asked(self) -> str:
        """Who is asked, and how, in words."""
        model = None if self.model is None else getattr(self.model, "name", self.model)
        effort = None if self.effort is None else f"at effort {self.effort!r}"
        return " ".join(str(part) for part in (model, effort, self.strategy) if part is not None)

    def same_model(self, other: Rung) -> bool:
        """Whether both ask the same model at the same effort."""
        return self.model == other.model and self.effort == other.effort


@dataclass(frozen=True)
class Ladder(BaseStrategy):
    """Climbs from cheap to dear until the answers so far agree.

    Each rung is asked only if the one before did not settle the problem. Where a rung cannot be paid or fails, the
    answer of the one before stands; where all samples of the first one failed, the next of another model or effort is
    asked, unless a key, an account, a setting or a verifier is what failed. All draw on the one budget, each model at
    its own prices. The single answer of a later rung has no confidence, and is taken whatever `abstain_below` says, as
    that of an escalation is; with `beside`, its confidence is that of all answers that it was chosen among.

    Args:
        rungs: from cheap to dear; a bare strategy is a rung of the run's own model.
        signal: what says that a problem is settled, see `difficulty.predicted`; or "confidence", that of the choice, as
            `Result.confidence` has it. By default the best score after a `BestOfN` by best score, the share of the
            answers that agree after other samples, and the confidence after a search or a revision.
        enough: the signal at which it ends: a number, or "careful", "balanced", "bold" (1, 0.75, 0.6).

    Raises:
        ConfigurationError: there are no rungs, or one that cannot tell whether its answers agree; at the call, a rung's
            model is not given.
    """

    rungs: tuple[Rung, ...]
    signal: Signal | Literal["confidence"] | None = field(default=None, kw_only=True)
    enough: float | ShippedRule = field(default="balanced", kw_only=True)
    _models: Mapping[str, Model] = field(init=False, default_factory=dict, compare=False, repr=False)

    if TYPE_CHECKING:  # bare strategies become rungs

        def __init__(
            self,
            rungs: Sequence[Rung | BaseStrategy],
            *,
            signal: Signal | Literal["confidence"] | None = None,
            enough: float | ShippedRule = "balanced",
        ) -> None: ...

    def __post_init__(self) -> None:
        given: Any = self.rungs
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise ConfigurationError(f"Ladder: rungs={given!r} must be a list of at least one strategy or Rung")
        rungs = tuple(rung if isinstance(rung, Rung) else Rung(strategy=rung) for rung in given)
        object.__setattr__(self, "rungs", rungs)
        if self.signal not in (None, _CONFIDENCE, *SIGNALS):
            known = ", ".join(map(repr, (*SIGNALS, _CONFIDENCE)))
            raise ConfigurationError(f"Ladder: signal={self.signal!r} is not known; use one of {known}")
        if isinstance(self.enough, str) and self.enough not in get_args(ShippedRule):
            raise ConfigurationError(
                f"Ladder: enough={self.enough!r} is not known; use 'careful', 'balanced' or 'bold'"
            )
        if not isinstance(self.enough, str):
            check_share("Ladder", "enough", self.enough)
        for i, rung in enumerate(rungs[:-1]):
            if self._signal_of(rung) in _OF_SEVERAL and self._most(i) < 2:
                raise ConfigurationError(
                    f"Ladder: rung {i + 1}, {rung.strategy!r}, gives one answer, which always agrees with itself; use "
                    "n=2 or more, or signal='best' with a verifier"
                )
        for i, (before, rung) in enumerate(itertools.pairwise(rungs), 1):
            if rung.same_model(before):
                _check_goes_on(i + 1, before.strategy, rung.strategy)

    def calls(self) -> tuple[int, int]:
        """Return the least and the most generations that it asks for."""
        first: Any = self.rungs[0].strategy
        least = first.calls()[0] if hasattr(first, "calls") else 1
        carried = [i and self.rungs[i].same_model(self.rungs[i - 1]) for i in range(len(self.rungs))]
        asked = [self._most(i) - (self._most(i - 1) if same else 0) for i, same in enumerate(carried)]
        return least, sum(max(0, k) for k in asked)

    def with_models(self, models: Mapping[str, Model]) -> Self:
        """Return the same ladder with the models that its rungs name.

        Raises:
            ConfigurationError: one of them is not a model.
        """
        given: Any = models
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"Ladder: models={models!r:.80} must be a dict of models by their names")
        for name, model in models.items():
            if not is_model(model):
                raise ConfigurationError(f"Ladder: {name}={model!r} is not a model; pass one of tts_plugins.models")
        made = replace(self)
        object.__setattr__(made, "_models", {**self._models, **models})
        return made

    @property
    def needs_scores(self) -> bool:
        """Whether a rung, or what ends it, goes by scores."""
        signals = {self._signal_of(rung) for rung in self.rungs[:-1]}
        return bool(signals & set(OF_SCORES)) or any(rung.strategy.needs_scores for rung in self.rungs)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models that it asks besides the run's own."""
        return tuple(dict.fromkeys(rung.model for rung in self.rungs if isinstance(rung.model, str)))

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        models = [self._model_of(rung, run) for rung in self.rungs]  # before anything is paid
        for model in models:
            if model is not None:
                await run.room(problem, 1, model=model)  # raises where a limit cannot hold over it
        seen: list[Scored] = []

        async def ask(i: int, own: HeardRun) -> Scored:
            nonlocal seen
            rung = self.rungs[i]
            same = i > 0 and rung.same_model(self.rungs[i - 1])
            given = seen if same or rung.beside else []
            inner = SeededRun(own, given, models[i])
            best = await self._strategy(rung, seen, same)(inner, problem)
            own.asked, seen = len(inner.seen) > len(given), inner.seen
            return best

        asks = [partial(ask, i) for i in range(len(self.rungs))]
        anew = [i == 0 or not rung.same_model(self.rungs[i - 1]) for i, rung in enumerate(self.rungs)]

        def settled(i: int, best: Scored, heard: HeardRun) -> bool:
            return self._settled(run, i, best, seen, heard.sureness(best, seen)[0])

        return await climb(run, asks, anew, settled)

    def _strategy(self, rung: Rung, seen: Sequence[Scored], same: bool) -> BaseStrategy:
        strategy = rung.strategy
        if rung.beside and not same and isinstance(strategy, BestOfN | SelfConsistency):
            return replace(strategy, n=len(seen) + strategy.n, stop=None, wave=None)
        return strategy

    def _settled(self, run: Run, number: int, best: Scored, seen: Sequence[Scored], sureness: float | None) -> bool:
        rung, ease = self.rungs[number], sureness
        if (signal := self._signal_of(rung)) != _CONFIDENCE:
            looked_at = seen if best in seen else [*seen, best]  # what a search or a revision makes is no sample
            several = signal not in _OF_SEVERAL or sum(not c.truncated for c in looked_at) > 1
            ease = predicted(looked_at, signal) if several else None
        enough = rung.enough if rung.enough is not None else self.enough
        needed = _ENOUGH[enough] if isinstance(enough, str) else enough
        settled = ease is not None and ease >= needed - 1e-9
        run.note("rung", rung=number + 1, of=len(self.rungs), signal=signal, ease=ease, enough=needed, settled=settled,
                 then=None if settled else self.rungs[number + 1].asked)  # fmt: skip
        if settled:
            run.note("stop", rule=f"{signal} >= {needed:g}", seen=len(seen), left=0)
        return settled

    def _signal_of(self, rung: Rung) -> Signal | Literal["confidence"]:
        if self.signal is not None:
            return self.signal
        if not isinstance(rung.strategy, BestOfN | SelfConsistency):
            return _CONFIDENCE
        return "best" if isinstance(rung.strategy, BestOfN) and rung.strategy.select == "best" else "agreement"

    def _most(self, number: int) -> int:
        """Return how many answers there can be after a rung."""
        strategy: Any = self.rungs[number].strategy
        return strategy.calls()[1] if hasattr(strategy, "calls") else 1

    def _model_of(self, rung: Rung, run: Run) -> Model | None:
        """Return the model that a rung asks; None for the run's own.

        Raises:
            ConfigurationError: its name stands for nothing here, or the model has no reasoning effort to set.
        """
        named = self._models.get(rung.model, rung.model) if isinstance(rung.model, str) else rung.model
        other = None if named is None or named == run.model.name else named
        if other is None and rung.effort is None:
            return None
        if is_model(other) and rung.effort is None:
            return other
        asked = other if is_model(other) else run.model
        vary = getattr(asked, "variant", None)
        if vary is None:
            effort = "" if rung.effort is None else f" at effort {rung.effort!r}"
            raise ConfigurationError(
                f"Ladder: a rung asks model {rung.model or asked.name!r}{effort}, which {asked.name} cannot become; "
                "give the model itself: Rung(model=…), ladder.with_models({name: model}), or policy.with_larger(model)"
            )
        varied: Model = vary(model=None if is_model(other) else other, effort=rung.effort)
        return varied


def _check_goes_on(number: int, before: BaseStrategy, then: BaseStrategy) -> None:
    """Raise unless a rung that goes on from the samples of another one may take more of them."""
    if not isinstance(before, BestOfN | SelfConsistency) or not isinstance(then, BestOfN | SelfConsistency):
        return
    if then.n < before.n or then == before:
        raise ConfigurationError(
            f"Ladder: rung {number}, {then!r}, goes on from the samples of the rung before, which its n counts, and "
            f"asks for none; use a larger n, such as n={2 * before.n}"
        )
