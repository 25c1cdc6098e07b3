"""`ScaledLM`: a language model that searches inside, so that a whole program is scaled without touching it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Never, Unpack

import dspy

from tts_plugins import Candidate, Generation, Problem
from tts_plugins.adapters import (
    MeteredModel,
    Text,
    as_verifier,
    called_as,
    check_names,
    check_placed,
    required_parameters,
)
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins_dspy._calls.scope import scope_here
from tts_plugins_dspy._calls.versions import message_call
from tts_plugins_dspy._outputs.verifying import Judged, scoring
from tts_plugins_dspy._outputs.votes import Votes, said_by
from tts_plugins_dspy._outputs.withheld import check_escalation, output_of
from tts_plugins_dspy._search import Search
from tts_plugins_dspy._settings import Held, LMOptions, check_temperature


class ScaledLM(dspy.BaseLM):  # type: ignore[misc]
    """A language model that asks another one several times, and answers with the best it said.

        dspy.configure(lm=ScaledLM(dspy.LM("openai/gpt-4o-mini"), n=5))

    Every predictor of a program is then a search of its own. Callbacks, history and usage trackers see the inner calls,
    each once. Where a metric of the whole program is at hand, `Scaled` around the program chooses better.

    Args:
        lm: the language model that is asked; it is not changed.
        verifier: a function of the text, or of (problem, candidate), or one of `tts_plugins.verifiers`.
        answer: from a model's output (a list of texts or dicts) to what votes; by default the last field that the
            active adapter reads from the text, or else the answer that `tts_plugins.answers` finds in it.
        abstain_below, on_abstain, escalate: as for `Scaled`. A language model has no form for "no answer", so that
            `LowConfidence` is raised in any case.
        strategy, budget, seed, profile, n, price, temperature, on_exhausted, concurrency: as for `Scaled`.

    Raises:
        ConfigurationError: it is not a language model, or a setting is wrong.
    """

    _tts_plugins_searches = True

    @called_as("ScaledLM(lm, n=8)")
    def __init__(self, lm: Any, *placed: Never, **options: Unpack[LMOptions]) -> None:
        given = dict[str, Any](**options)
        check_placed("ScaledLM(lm", placed)
        check_names("ScaledLM", given, LMOptions.__annotations__)
        if not isinstance(lm, dspy.BaseLM):
            fix = "use Scaled for a module" if isinstance(lm, dspy.Module) else "pass dspy.LM(...)"
            raise ConfigurationError(f"ScaledLM: lm={lm!r:.200} is not a language model; {fix}")
        if isinstance(verifier := given.get("verifier"), dspy.Module):
            raise ConfigurationError(
                f"ScaledLM: verifier={type(verifier).__name__}(…) is a module, which judges predictions, and a "
                "language model gives texts; use Scaled(program, verifier=…), or an LLMJudge"
            )
        self.lm = lm
        standing = {name: getattr(lm, name) for name in ("model_type", "cache", "num_retries") if hasattr(lm, name)}
        super().__init__(getattr(lm, "model", type(lm).__name__), **standing)
        self.kwargs = getattr(lm, "kwargs", {})
        self._temperature = check_temperature("ScaledLM", given.pop("temperature", 1.0))
        concurrency = given.pop("concurrency", None)
        self._settings = Held.of("ScaledLM", given)
        as_verifier("ScaledLM", self._settings.verifier)
        check_escalation("ScaledLM", self._settings.escalate)
        self._model = MeteredModel(str(self.model), concurrency)

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """The chosen output, in the form that the language model gives."""
        return output_of(self._search(prompt, messages, kwargs).run())

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """`__call__`, through the language model's `acall`."""
        return output_of(await self._search(prompt, messages, kwargs).arun())

    def copy(self, **changes: Any) -> ScaledLM:
        """The same search over a changed language model; its history and its list of callbacks are its own."""
        made = copy.copy(self)
        made.lm = self.lm.copy(**changes)
        made.model, made.kwargs = getattr(made.lm, "model", self.model), getattr(made.lm, "kwargs", {})
        made.history, made.callbacks = [], list(self.callbacks)
        return made

    def dump_state(self) -> dict[str, Any]:
        """Raise: a verifier has no saved form.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "ScaledLM: it cannot be saved with a program; set it with dspy.configure(lm=…), which saves none"
        )

    def __repr__(self) -> str:
        return f"ScaledLM({self.model!r}, {self._settings.shown()})"

    def __getattr__(self, name: str) -> Any:
        if name == "lm" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.lm, name)

    @property
    def supports_function_calling(self) -> bool:
        """That of the language model inside."""
        return bool(getattr(self.lm, "supports_function_calling", False))

    @property
    def supports_reasoning(self) -> bool:
        """That of the language model inside."""
        return bool(getattr(self.lm, "supports_reasoning", False))

    @property
    def supports_response_schema(self) -> bool:
        """That of the language model inside."""
        return bool(getattr(self.lm, "supports_response_schema", False))

    @property
    def supported_params(self) -> set[str]:
        """Those of the language model inside."""
        return set(getattr(self.lm, "supported_params", ()))

    def _search(self, prompt: Any, messages: Any, kwargs: dict[str, Any]) -> Search:
        asked = messages or (prompt if isinstance(prompt, str) else {"request": str(prompt)})
        return Search(
            model=self._model, module=_Sampled(self.lm), settings=self._settings, temperature=self._temperature,
            args=(), inputs={"prompt": prompt, "messages": messages, **kwargs}, problem=Problem(asked),
            read=_generation, verify=_verifier_of, vote=Votes(), hints=False,
            check_revision=lambda: _check_revision(prompt, messages),
        )  # fmt: skip


class _Sampled:
    """Calls of a language model; with the attempts that the candidate is to improve on as further turns."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def with_lm(self, lm: Any) -> _Sampled:
        """Return the same for the language model that a rung of a ladder asks."""
        return _Sampled(lm)

    def __call__(self, *, prompt: Any, messages: Any, **kwargs: Any) -> Any:
        prompt, messages = _turned(prompt, messages)
        with message_call(self.lm, messages):
            return self.lm(*_given(prompt), **_given_messages(messages), **kwargs)

    async def aforward(self, *, prompt: Any, messages: Any, **kwargs: Any) -> Any:
        prompt, messages = _turned(prompt, messages)
        with message_call(self.lm, messages):
            return await self.lm.acall(*_given(prompt), **_given_messages(messages), **kwargs)

    acall = aforward


def _given(prompt: Any) -> tuple[Any, ...]:
    return () if prompt is None else (prompt,)


def _given_messages(messages: Any) -> dict[str, Any]:
    return {} if messages is None else {"messages": messages}


def _check_revision(prompt: Any, messages: Any) -> None:
    if messages is None and not isinstance(prompt, str):
        raise ConfigurationError(
            f"ScaledLM: prompt is a {type(prompt).__name__}, to which earlier attempts cannot be added, and revision "
            "needs that; pass messages=[...] or a text, or use BestOfN"
        )


def _turned(prompt: Any, messages: Any) -> tuple[Any, Any]:
    """The conversation, with the attempts that the candidate is to better as further turns."""
    scope = scope_here()
    if scope is None or scope.attempts is None:
        return prompt, messages
    return None, [*(messages or [{"role": "user", "content": prompt}]), *scope.attempts.turns()]


def _generation(output: Any) -> Generation:
    said = said_by(output)
    return Generation(text=Text.of(said, output, blank=not said.strip()), output=output)


def _verifier_of(value: Any, search: Judged) -> Verifier | SetVerifier:
    return value if isinstance(value, Verifier | SetVerifier) else _function(value, search)


def _function(function: Callable[..., Any], search: Judged) -> Verifier:
    name = str(getattr(function, "__name__", type(function).__name__))
    return scoring(search, name, function, _text if required_parameters(function) == 1 else _problem_and_candidate)


def _text(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return (str(candidate.text),)


def _problem_and_candidate(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return candidate.problem, candidate
