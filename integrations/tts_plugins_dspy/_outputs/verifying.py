"""What scores candidates: a verifier of `tts_plugins`, a metric or reward function, or a module that judges."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import dspy

from tts_plugins import Candidate, Problem
from tts_plugins.adapters import FunctionVerifier, required_parameters, signature_of, takes
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.protocols import SetVerifier, Verifier, is_set_verifier, is_verifier
from tts_plugins_dspy._outputs.verdicts import Reward, read_verdict


def check_verifier(owner: str, value: Any) -> None:
    """Raise unless it is a verifier, or a function that can be called as one, before anything is paid for.

    Raises:
        ConfigurationError: it is neither; the message names it.
    """
    if value is None or (isinstance(value, dspy.Module | Verifier | SetVerifier) and not isinstance(value, type)):
        return
    if isinstance(value, type) or not callable(value):
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is not a verifier; pass a metric, a function of the prediction, a "
            "dspy.Module that gives a score, or one of tts_plugins.verifiers"
        )
    reward = isinstance(value, Reward)
    function = _called(value.function) if reward else value
    if not takes(function, 2 if reward else _arguments(function)):
        judges = reward and isinstance(value.function, dspy.Module)
        name = type(value.function).__name__ if judges else getattr(function, "__name__", type(function).__name__)
        wanted = "(args, pred)" if reward else "(example, prediction), (example, prediction, trace), or the prediction"
        wanted += "; a module that judges by its fields goes to verifier=" if judges else ""
        raise ConfigurationError(
            f"{owner}: {'reward_fn' if reward else 'verifier'} {name}{signature_of(function)} must take {wanted}"
        )


def _called(function: Any) -> Any:
    """What is called of a reward function: `forward`, where it is a module, got past DSPy's warning of direct calls."""
    return object.__getattribute__(function, "forward") if isinstance(function, dspy.Module) else function


def _arguments(function: Callable[..., Any]) -> int:
    """How many arguments a function takes: the prediction; example and prediction; or these two and the trace."""
    wanted = required_parameters(function)
    return wanted if wanted in (1, 3) else 2


class Judged(Protocol):
    """What a verifier needs of the search whose candidates it scores."""

    inputs: dict[str, Any]

    def set(self, **settings: Any) -> Any:
        """DSPy's settings for a verification."""
        ...

    def trace_of(self, seed: int | None) -> list[Any]:
        """The trace of the program in a candidate."""
        ...


Arguments = Callable[[Judged, Candidate], tuple[Any, ...]]


def verifier_of(value: Any, search: Judged) -> Verifier | SetVerifier:
    """The verifier of one search, from what its user gave."""
    if isinstance(value, dspy.Module):
        return _module(value, search)
    if is_set_verifier(value) or is_verifier(value):
        return value
    return _function(value, search)


def _function(function: Any, search: Judged) -> Verifier:
    """A metric of (example, prediction[, trace]), a reward function, or a function of the prediction alone."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if isinstance(function, Reward):
        return scoring(search, name, function.function, _inputs_and_output, function.read)
    arguments = (_output, _example_and_output, _example_output_and_trace)[_arguments(function) - 1]
    return scoring(search, name, function, arguments, partial(read_verdict, who=name))


def _inputs_and_output(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return search.inputs, candidate.output


def _output(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return (candidate.output,)


def _example_and_output(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return _Asked(**search.inputs).with_inputs(*search.inputs), candidate.output


def _example_output_and_trace(search: Judged, candidate: Candidate) -> tuple[Any, ...]:
    return *_example_and_output(search, candidate), search.trace_of(candidate.seed)


class _Asked(dspy.Example):  # type: ignore[misc]
    """The example of a metric: the inputs alone. If the metric reads a gold answer, the error says why it cannot."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise AttributeError(self._lacks(name)) from None

    def __getitem__(self, name: str) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            raise KeyError(self._lacks(name)) from None

    def _lacks(self, name: str) -> str:
        inputs = ", ".join(self.keys())
        return (
            f"the example has no {name!r}: where a program answers, there are its inputs only ({inputs}); a metric "
            "that reads the gold answer is for dspy.Evaluate and optimisers, a verifier judges without it"
        )


class _Calls:
    """The calls of a function that scores. Every search has one; functions made for each would be more objects."""

    __slots__ = ("_arguments", "_function", "_read", "_search")

    def __init__(
        self, search: Judged, function: Callable[..., Any], arguments: Arguments, read: Callable[[Any], Any]
    ) -> None:
        self._search, self._function, self._arguments, self._read = search, function, arguments, read

    async def ascore(self, problem: Problem, candidate: Candidate) -> Any:
        with self._search.set(trace=[]):
            return self._read(await self._function(*self._arguments(self._search, candidate)))

    def score(self, problem: Problem, candidate: Candidate) -> Any:
        with self._search.set(trace=[]):
            value = self._function(*self._arguments(self._search, candidate))
            # An object or a wrapper that gives a coroutine: its model calls are still to come.
            return self._finished(value) if inspect.isawaitable(value) else self._read(value)

    async def _finished(self, value: Awaitable[Any]) -> Any:
        with self._search.set(trace=[]):
            return self._read(await value)


def scoring(
    search: Judged,
    name: str,
    function: Callable[..., Any],
    arguments: Arguments,
    read: Callable[[Any], Any] = lambda value: value,
) -> Verifier:
    """A function as the verifier of a search, synchronous or not, called where its own model calls are counted.

    Args:
        arguments: what it is called with.
        read: from what it returns to what `CallableVerifier` takes.
    """
    calls = _Calls(search, function, arguments, read)
    return FunctionVerifier(calls.ascore if inspect.iscoroutinefunction(function) else calls.score, name)


def _module(judge: Any, search: Judged) -> Verifier:
    """A module that is asked with those inputs and outputs that it has fields for."""
    name = type(judge).__name__

    def ask(candidate: Candidate) -> Any:
        output = candidate.output
        said = dict(output.items()) if isinstance(output, dspy.Example) else {"output": output}
        return judge(**_fitting(judge, {**search.inputs, **said}, name))

    return scoring(search, name, ask, lambda _, candidate: (candidate,), partial(read_verdict, who=name))


def _signature(judge: Any) -> Any:
    """What a judge is asked by: its own signature (agents have one), or that of what it wraps, or of its predictor."""
    found = getattr(judge, "signature", None)
    inside = getattr(judge, "module", None)
    if found is None and isinstance(inside, dspy.Module):
        return _signature(inside)
    predictors = judge.predictors() if found is None else ()
    return predictors[0].signature if predictors else found


def _fitting(judge: Any, known: Mapping[str, Any], name: str) -> dict[str, Any]:
    # Past DSPy's own access to `forward`, which warns of direct calls; nothing is called here.
    parameters = inspect.signature(object.__getattribute__(judge, "forward")).parameters
    wanted = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not wanted:
        wanted = list(getattr(_signature(judge), "input_fields", ()))
    lacking = [n for n in wanted if n not in known and (n not in parameters or parameters[n].default is inspect._empty)]
    if lacking:
        raise VerifierError(
            f"{name}: its input {lacking[0]!r} is neither an input of the program nor a field of its prediction; those "
            f"are {', '.join(known)}"
        )
    return {n: known[n] for n in wanted if n in known}
