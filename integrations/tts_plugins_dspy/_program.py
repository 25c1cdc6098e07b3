"""A program that searches where the one inside it would have answered once."""

from __future__ import annotations

from typing import Any, Never, Unpack

import dspy

from tts_plugins import Result
from tts_plugins.adapters import REVISING, MeteredModel, called_as, check_names, check_placed
from tts_plugins.errors import ConfigurationError
from tts_plugins_dspy._calls.scope import HINT
from tts_plugins_dspy._calls.usage import predictors_of
from tts_plugins_dspy._isolation import keeps_state
from tts_plugins_dspy._outputs.verifying import check_verifier
from tts_plugins_dspy._outputs.withheld import check_escalation, prediction_of
from tts_plugins_dspy._search import Search
from tts_plugins_dspy._settings import Held, ProgramOptions, check_copy, check_temperature

_NO_STEPS = "use BestOfN or Revision: DSPy's adapters continue no text"


class SearchedProgram(dspy.Module):  # type: ignore[misc]
    """A module that runs another one several times at once, and answers with the best prediction.

        Scaled(dspy.ChainOfThought("question -> answer"), strategy=BestOfN(n=8), verifier=metric)

    It is called as the module is, `acall` included; `solve` and `asolve` give the whole result. The module is not
    changed: optimisers find its predictors under `module`, and in `dspy.settings.trace` stands the trace of the chosen
    candidate alone. DSPy's cache keeps each candidate for itself, so that the same call costs nothing again.

    With `Revision`, every prompt of the program has a further input `hint_` in the calls of a revision: the latest
    predictions, and what the verifier said of them; or why there is none.

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
        temperature: for calls that set none, or 0; None sends none, for models that refuse it.
        on_exhausted: when the budget ends a search, answer with the best so far, or raise `BudgetExhausted`.
        abstain_below: the least confidence with which it answers, 0 to 1 (see `Result.confidence`).
        on_abstain: below it, a `Withheld` prediction ("none"), `LowConfidence` ("raise"), or what `escalate` names is
            asked within the same budget ("escalate").
        escalate: another module, asked once; a language model, by which the module answers once; a strategy; or
            "person", where `prediction.abstained.person` says that a person is to be asked.
        concurrency: candidates at once, over all calls of this object.
        copy: whether each candidate has a copy of the module, so that what `forward` keeps in `self` stays its own:
            "auto" where it holds what can change, or its code does more with `self` than read it. A copy has its own
            modules, containers, and objects that hold nothing but data; it shares language models, clients, and
            attributes of classes. With True, other objects are copied too, as `dspy.Module.deepcopy` does it.

    Raises:
        ConfigurationError: it is not a module, or a setting is wrong.
    """

    @called_as("Scaled(module, n=8)")
    def __init__(self, module: Any, *placed: Never, **options: Unpack[ProgramOptions]) -> None:
        super().__init__()
        who, given = type(self).__name__, dict[str, Any](**options)
        check_placed(f"{who}(module", placed)
        check_names(who, given, ProgramOptions.__annotations__)
        if not isinstance(module, dspy.Module):
            is_model = isinstance(module, dspy.BaseLM)
            fix = "use ScaledLM for a language model" if is_model else "pass dspy.Predict(...) or such"
            raise ConfigurationError(f"{who}: module={module!r} is not a dspy.Module; {fix}")
        self.module = module
        self._temperature = check_temperature(who, given.pop("temperature", 1.0))
        self._copy = check_copy(who, given.pop("copy", "auto"))
        self._fail_count: int | None = None
        concurrency = given.pop("concurrency", None)
        self._settings = Held.of(who, given)
        check_verifier(who, self._settings.verifier)
        check_escalation(who, self._settings.escalate, module)
        if isinstance(self._settings.strategy, REVISING):
            self._check_revision()
        self._model = MeteredModel(type(module).__name__, concurrency, no_steps=_NO_STEPS)

    def __repr__(self) -> str:
        inside = super().__repr__().replace("\n", ", ")
        return f"{type(self).__name__}({type(self.module).__name__}, {self._settings.shown()}): {inside}"

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The chosen prediction; a `Withheld` one, whose fields are None, where nothing is sure enough."""
        return prediction_of(self.solve(*args, **inputs))

    async def aforward(self, *args: Any, **inputs: Any) -> Any:
        """The chosen prediction, through the module's `acall`."""
        return prediction_of(await self.asolve(*args, **inputs))

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
            args=args, inputs=inputs, check_revision=self._check_revision, fail_count=self._fail_count,
            isolate=keeps_state(self.module) if self._copy == "auto" else bool(self._copy), deep=self._copy is True,
        )  # fmt: skip

    def _check_revision(self) -> None:
        if not predictors_of(self.module):
            raise ConfigurationError(
                f"{type(self).__name__}: {type(self.module).__name__} has no predictor that could be shown earlier "
                f"attempts (they come in an input field {HINT!r}), which revision needs; give it a dspy.Predict as an "
                "attribute, or use BestOfN"
            )
