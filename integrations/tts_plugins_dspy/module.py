"""`Scaled`: any module in, a module out that searches where the module would have answered once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, Never

import dspy

from tts_plugins import BestOfN as BestOfNStrategy
from tts_plugins import Budget, Ledger, Result, Revision
from tts_plugins.adapters import REVISING, MeteredModel, SearchSettings, check_names
from tts_plugins.errors import ConfigurationError
from tts_plugins.metering import Prices
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.stopping import Threshold
from tts_plugins_dspy._rewards import Reward, squash
from tts_plugins_dspy._scope import HINT
from tts_plugins_dspy._search import Search
from tts_plugins_dspy._verifying import check_verifier

_NO_STEPS = "use BestOfN or Revision: DSPy's adapters continue no text"
AnyVerifier = Verifier | SetVerifier | Callable[..., Any]


class Held(SearchSettings):
    """Settings that copies of a program share: optimisers copy programs, and a ledger or a judge is one."""

    def __deepcopy__(self, memo: Any) -> Held:
        return self


class Scaled(dspy.Module):  # type: ignore[misc]
    """A module that runs another one several times at once, and answers with the best prediction.

        Scaled(dspy.ChainOfThought("question -> answer"), strategy=BestOfN(n=8), verifier=metric)

    It is called as the module is, `acall` included; `solve` and `asolve` give the whole result. The module is not
    copied or changed: optimisers find its predictors under `module`, and in `dspy.settings.trace` stands the trace of
    the chosen candidate alone. DSPy's cache keeps each candidate for itself, so that the same call costs nothing again.

    With `Revision`, every predictor of the program has a further input field `hint_` in the calls of a revision: the
    latest predictions, and what the verifier said of them.

    Args:
        module: any `dspy.Module`, of one language model or several.
        strategy: a strategy, or its registered name; `BestOfN(n=8)` where there is a verifier, else
            `SelfConsistency(n=8)`.
        verifier: gives scores from 0 to 1: a metric of (example, prediction[, trace]), where the example has the
            inputs; a function of the prediction; a `dspy.Module` that gives `score` (and `feedback`), asked with those
            inputs and outputs that it has fields for; or one of `tts_plugins.verifiers`.
        budget: limits for each call, or a `Ledger` that many share. Verification counts.
        seed: another one means other samples. The same call has the same samples in any case.
        answer: from a prediction to what votes; its last field where left out.
        profile: a named bundle that gives what is not set here.
        n: candidates, where the strategy is to have another number than it says.
        price: dollars per million prompt and completion tokens, or a dict of these by the name of the model.
        temperature: for calls that set none, or 0.
        on_exhausted: when the budget ends a search, answer with the best so far, or raise `BudgetExhausted`.
        concurrency: candidates at once, over all calls of this object.

    Raises:
        ConfigurationError: it is no module, or a setting is wrong.
    """

    def __init__(
        self,
        module: Any,
        *,
        strategy: Strategy | str | None = None,
        verifier: AnyVerifier | None = None,
        budget: Budget | Ledger | None = None,
        seed: int | None = None,
        answer: Callable[[Any], str | None] | None = None,
        profile: str | None = None,
        n: int | None = None,
        price: Prices = None,
        temperature: float = 1.0,
        on_exhausted: Literal["return", "raise"] = "return",
        concurrency: int | None = None,
        **unknown: Never,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if unknown:
            takes = {*inspect.signature(Scaled.__init__).parameters, *inspect.signature(type(self).__init__).parameters}
            check_names(who, unknown, takes - {"self", "settings", "unknown"})
        if not isinstance(module, dspy.Module):
            raise ConfigurationError(f"{who}: module={module!r} is no dspy.Module; pass dspy.Predict(...) or such")
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature <= 2:
            raise ConfigurationError(f"{who}: temperature={temperature!r} must be above 0 and at most 2")
        self.module = module
        self._temperature = float(temperature)
        self._settings = Held().changed(
            who,
            {
                "strategy": strategy, "verifier": verifier, "budget": budget, "seed": seed, "answer": answer, "n": n,
                "profile": profile, "price": price, "on_exhausted": on_exhausted,
            },
        )  # fmt: skip
        check_verifier(who, self._settings.verifier)
        if isinstance(self._settings.strategy, REVISING):
            self._check_revision()
        self._model = MeteredModel(type(module).__name__, concurrency, no_steps=_NO_STEPS)

    def __repr__(self) -> str:
        inside = super().__repr__().replace("\n", ", ")
        return f"{type(self).__name__}({type(self.module).__name__}, {self._settings.shown()}): {inside}"

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The chosen prediction."""
        return self.solve(*args, **inputs).output

    async def aforward(self, *args: Any, **inputs: Any) -> Any:
        """The chosen prediction, through the module's `acall`."""
        return (await self.asolve(*args, **inputs)).output

    def solve(self, *args: Any, **inputs: Any) -> Result:
        """The whole result: score, candidates, usage, trace; its `output` is the prediction."""
        return self._search(args, inputs).run()

    async def asolve(self, *args: Any, **inputs: Any) -> Result:
        """`solve`, asynchronous."""
        return await self._search(args, inputs).arun()

    def load_state(self, state: dict[str, Any], **options: Any) -> Any:
        """Load its own saved state, or that of the bare module."""
        own = {name for name, _ in self.named_parameters()} <= set(state)
        return (super().load_state if own else self.module.load_state)(state, **options)

    def _search(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Search:
        return Search(
            model=self._model, module=self.module, settings=self._settings, temperature=self._temperature,
            args=args, inputs=inputs, check_revision=self._check_revision,
        )  # fmt: skip

    def _check_revision(self) -> None:
        if not self.module.predictors():
            raise ConfigurationError(
                f"{type(self).__name__}: {type(self.module).__name__} has no predictor that could be shown earlier "
                f"attempts (they come in an input field {HINT!r}), which revision needs; give it a dspy.Predict as an "
                "attribute, or use BestOfN"
            )


class BestOfN(Scaled):
    """`dspy.BestOfN`, with its arguments: concurrent, asynchronous too, under a budget, and open to optimisers.

        BestOfN(module, N=3, reward_fn=lambda args, pred: float(len(pred.answer.split()) == 1), threshold=1.0)

    Args:
        module: any `dspy.Module`.
        N, n: candidates at most; either name.
        reward_fn: from the inputs and a prediction to a number, higher is better. It stands in `details["reward"]` of
            the candidate; its score is the reward squashed into [0, 1].
        threshold: a reward that is good enough: candidates are then begun in waves of 1, 2, 4, …, until one has it.
        settings: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold` is one.

    Raises:
        ConfigurationError: there is neither or both of two, or a setting is wrong.
    """

    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: Callable[[dict[str, Any], Any], Any] | None = None,
        threshold: float | None = None,
        *,
        n: int | None = None,
        verifier: AnyVerifier | None = None,
        **settings: Any,
    ) -> None:
        count, scoring, stop = _short_form("BestOfN", N, n, reward_fn, threshold, verifier, settings)
        super().__init__(module, strategy=BestOfNStrategy(n=count, stop=stop), verifier=scoring, **settings)


class Refine(Scaled):
    """`dspy.Refine`, with its arguments: each attempt sees the ones before and what was said of them.

        Refine(module, N=3, reward_fn=one_word_answer, threshold=1.0)

    Feedback is what the reward function or verifier says: a `dspy.Prediction` with `score` and `feedback`, or a pair of
    the two. No further model call is made for advice, every attempt counts for the choice, and nothing is printed. It
    has `acall`, a budget, and several chains of attempts side by side.

    Args:
        module: any `dspy.Module`.
        N, n: attempts at most, over all chains; either name.
        reward_fn: from the inputs and a prediction to a number, higher is better, as for `BestOfN`.
        threshold: a reward that is good enough to end a chain.
        chains: first attempts, which are then refined side by side; `N` is shared evenly among them.
        settings: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold` is one.

    Raises:
        ConfigurationError: there is neither or both of two, `N` is no multiple of `chains`, the module has no
            predictor, or a setting is wrong.
    """

    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: Callable[[dict[str, Any], Any], Any] | None = None,
        threshold: float | None = None,
        *,
        n: int | None = None,
        chains: int = 1,
        verifier: AnyVerifier | None = None,
        **settings: Any,
    ) -> None:
        count, scoring, stop = _short_form("Refine", N, n, reward_fn, threshold, verifier, settings)
        if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1 or count % chains:
            raise ConfigurationError(f"Refine: N={count} attempts cannot be shared evenly by chains={chains!r}")
        strategy = Revision(chains=chains, rounds=count // chains, select="best", stop=stop)
        super().__init__(module, strategy=strategy, verifier=scoring, **settings)


def _short_form(
    who: str, N: Any, n: Any, reward_fn: Any, threshold: Any, verifier: Any, settings: dict[str, Any]
) -> tuple[int, Any, Threshold | None]:
    """The number of attempts, what scores them, and when a score is good enough.

    Raises:
        ConfigurationError: there is neither or both of two, or one of them is wrong.
    """
    if (N is None) == (n is None):
        raise ConfigurationError(f"{who}: N={N!r} and n={n!r}; give one of the two")
    count = N if n is None else n
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"{who}: N={count!r} must be a whole number of at least 1")
    if (reward_fn is None) == (verifier is None):
        raise ConfigurationError(f"{who}: give reward_fn=… (any number) or verifier=… (from 0 to 1), one of the two")
    if settings.pop("fail_count", None) is not None:
        raise ConfigurationError(
            f"{who}: fail_count is not taken; leave it out: an attempt that fails is lost, the others go on, and "
            "AllCandidatesFailed is raised where none is left"
        )
    if "strategy" in settings:
        raise ConfigurationError(f"{who}: strategy={settings['strategy']!r} is for Scaled; leave it out, or use Scaled")
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
        raise ConfigurationError(f"{who}: threshold={threshold!r} must be a number")
    least = threshold if threshold is None or reward_fn is None else squash(threshold)
    scoring = verifier if reward_fn is None else Reward(reward_fn, who)
    return count, scoring, None if least is None else Threshold(least)
