"""A function of your own as the verifier."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from tts_plugins._internal.signatures import required_parameters, signature_of, takes
from tts_plugins._internal.threads import way_of
from tts_plugins.errors import ConfigurationError, InvalidScore
from tts_plugins.protocols import Run, SetVerifier, Verifier, is_set_verifier, is_verifier
from tts_plugins.selection import Aggregate, aggregate
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers._free import FreeVerifier

_UNREADABLE = (AttributeError, IndexError, KeyError, TypeError)


class CallableVerifier(FreeVerifier):
    """A function from a problem and a candidate, or from what the candidate says alone, to a score.

    Args:
        function: synchronous (then it runs on a thread) or asynchronous. It gets the `Problem` and the `Candidate`;
            where it takes one argument, the candidate's native output, or its text where there is none. It returns
            a bool, a number from 0 to 1, a sequence of either for its steps, a pair of one of these and a feedback
            text (or None), or a `Score`. Arrays and tensors count as sequences.
        name: as it appears in traces; the function's own name where left out.
        aggregate: how step scores become one score.
        inline: call a synchronous function where the engine runs, which saves the hop to a thread: for functions of
            microseconds only, since nothing else happens meanwhile.

    What is not a score in [0, 1], or raises, is an error of that candidate, and stands in the trace.

    Raises:
        ConfigurationError: `function` cannot be called, or not with these arguments, or `aggregate` is not known.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        aggregate: Aggregate = "last",
        inline: bool = False,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"CallableVerifier: function={function!r} cannot be called; pass a function")
        if aggregate not in get_args(Aggregate):
            known = ", ".join(map(repr, get_args(Aggregate)))
            raise ConfigurationError(f"CallableVerifier: aggregate={aggregate!r} is not known; use one of {known}")
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self._function, self._aggregate, self._inline = function, aggregate, inline
        self._call = way_of(function)
        self.inline = inline and not inspect.iscoroutinefunction(function)
        self._alone = required_parameters(function) == 1
        if not takes(function, 1 if self._alone else 2):  # before anything is paid for
            raise ConfigurationError(
                f"verifier {self.name}{signature_of(function)}: it must take (problem, candidate), or the candidate's "
                "output alone"
            )

    def __repr__(self) -> str:
        return f"CallableVerifier({self.name})"

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """What the function says.

        Raises:
            InvalidScore: it returned something that is not a score.
        """
        given = (_said(candidate),) if self._alone else (candidate.problem, candidate)
        if self._inline:
            result = self._function(*given)
            result = await result if inspect.isawaitable(result) else result
        else:
            result = await self._call(self._function, *given)
        return as_score(result, self.name, self._aggregate)


def as_verifier(owner: str, value: Any) -> Verifier | SetVerifier | None:
    """A verifier, from itself, or from a function that `CallableVerifier` takes.

    Raises:
        ConfigurationError: it is not a verifier. The message begins with `owner`.
    """
    if value is None or ((is_verifier(value) or is_set_verifier(value)) and not isinstance(value, type)):
        return value
    if isinstance(value, type) or not callable(value):
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is not a verifier; pass one of tts_plugins.verifiers, a function of the "
            "output, or a function of (problem, candidate)"
        )
    return CallableVerifier(value)


def _said(candidate: Candidate) -> Any:
    return candidate.text if candidate.output is None else candidate.output  # steps have no object of their own


def was_given(error: BaseException, candidate: Candidate) -> str:
    """What to say beside a function's error that comes of an output which is not what it took it for; else nothing."""
    if not isinstance(error, _UNREADABLE):
        return ""
    said = _said(candidate)
    kind = "str" if isinstance(said, str) else type(said).__name__
    shown = " ".join(repr(str(said) if isinstance(said, str) else said).split())
    return f"; the candidate's output is a {kind}, {shown:.60}: read that, or have what is wrapped give something else"


def as_score(result: Any, who: str, how: Aggregate = "last") -> Score:
    """A function's result as a `Score`.

    Raises:
        InvalidScore: it has none of the forms that `CallableVerifier` names.
    """
    if type(result) is float:
        return Score(value=result)  # as most are
    if isinstance(result, Score):
        return result
    if isinstance(result, tuple) and len(result) == 2 and (result[1] is None or isinstance(result[1], str)):
        scored = as_score(result[0], who, how)
        return scored if result[1] is None else replace(scored, feedback=result[1])
    if not isinstance(result, type) and hasattr(result, "tolist"):
        result = result.tolist()  # of numpy and torch, without importing them
    number = _number(result)
    if number is not None:
        return Score(value=number)
    if isinstance(result, Sequence) and not isinstance(result, str | bytes | Mapping) and len(result) > 0:
        steps = [_number(value) for value in result]
        if all(s is not None for s in steps):
            given = tuple(s for s in steps if s is not None)
            return Score(value=aggregate(given, how), steps=given)
    raise InvalidScore(
        f"{who} returned {result!r:.80} ({type(result).__name__}); return a bool, a number from 0 to 1, "
        "(score, feedback), step scores, or a Score"
    )


def _number(value: Any) -> float | None:
    """Booleans are 1 and 0; None for what is not a number."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__") or hasattr(value, "__len__"):
        return None
    return float(value)
