"""`Scaled`: any module in, a module out that searches where the module would have answered once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import dspy

from tts_plugins import BestOfN as BestOfNStrategy
from tts_plugins import Budget, Ledger, Result
from tts_plugins.adapting import SearchSettings
from tts_plugins.errors import ConfigurationError
from tts_plugins.metering import Prices
from tts_plugins.protocols import SetVerifier, Strategy, Verifier
from tts_plugins.stopping import Threshold
from tts_plugins_dspy._search import ProgramModel, Search
from tts_plugins_dspy._verifying import Reward, check_verifier, squash

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
    ) -> None:
        super().__init__()
        who = type(self).__name__
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
        self._model = ProgramModel(type(module).__name__, concurrency)

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

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> Any:
        """Its own saved state, or that of the bare module."""
        own = {name for name, _ in self.named_parameters()} <= set(state)
        loading = super().load_state if own else self.module.load_state
        return loading(state, allow_unsafe_lm_state=allow_unsafe_lm_state)

    def _search(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Search:
        return Search(
            model=self._model, module=self.module, settings=self._settings, temperature=self._temperature,
            args=args, inputs=inputs,
        )  # fmt: skip


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
        if (N is None) == (n is None):
            raise ConfigurationError(f"BestOfN: N={N!r} and n={n!r}; give one of the two")
        if (reward_fn is None) == (verifier is None):
            raise ConfigurationError(
                "BestOfN: give reward_fn=… (any number) or verifier=… (from 0 to 1), one of the two"
            )
        if "strategy" in settings:
            raise ConfigurationError(
                f"BestOfN: strategy={settings['strategy']!r} is for Scaled; leave it out, or use Scaled"
            )
        if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
            raise ConfigurationError(f"BestOfN: threshold={threshold!r} must be a number")
        least = threshold if threshold is None or reward_fn is None else squash(threshold)
        strategy = BestOfNStrategy(
            n=N if n is None else n,  # type: ignore[arg-type]
            stop=None if least is None else Threshold(least),
        )
        super().__init__(
            module, strategy=strategy, verifier=verifier if reward_fn is None else Reward(reward_fn), **settings
        )
