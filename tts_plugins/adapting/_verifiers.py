"""Functions as verifiers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.types import Candidate, Problem
from tts_plugins.verifiers import CallableVerifier


def as_verifier(owner: str, value: Any) -> Verifier | SetVerifier | None:
    """A verifier, from itself, or a function of (problem, candidate), or of a candidate's native output alone.

    Raises:
        ConfigurationError: it is none.
    """
    if value is None or (isinstance(value, Verifier | SetVerifier) and not isinstance(value, type)):
        return value
    if isinstance(value, type) or not callable(value):
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is no verifier; pass one of tts_plugins.verifiers, a function of the output, "
            "or a function of (problem, candidate)"
        )
    return function_verifier(value)


def function_verifier(function: Callable[..., Any]) -> Verifier:
    """A function of (problem, candidate), or of the native output alone, synchronous or not."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if required_parameters(function) != 1:
        return CallableVerifier(function, name=name)
    if inspect.iscoroutinefunction(function):

        async def alone(problem: Problem, candidate: Candidate) -> Any:
            return await function(_output(candidate))

        return CallableVerifier(alone, name=name)
    return CallableVerifier(lambda problem, candidate: function(_output(candidate)), name=name)


def _output(candidate: Candidate) -> Any:
    return candidate.text if candidate.output is None else candidate.output  # steps have no object of their own


def required_parameters(function: Callable[..., Any]) -> int:
    """Positional parameters that have to be given, or those that can be where none has to; 2 where nobody can tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-ins have no signature to read
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wanted = [p for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    return len(wanted) or len([p for p in parameters if p.kind in kinds])
