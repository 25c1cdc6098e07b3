"""A function of your own as the verifier."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from tts_plugins._threads import call_user
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, InvalidScore
from tts_plugins.protocols import Run
from tts_plugins.selection import Aggregate, aggregate
from tts_plugins.types import Candidate, Problem, Score


class CallableVerifier:
    """A function from a problem and a candidate to a score.

    Args:
        function: synchronous (then it runs on a thread) or asynchronous. It gets the `Problem` and the `Candidate`
            and returns a bool, a number from 0 to 1, a sequence of either for its steps, a pair of one of these and
            a feedback text, or a `Score`. Arrays and tensors count as sequences.
        name: as it appears in traces; the function's own name where left out.
        aggregate: how step scores become one score.
        inline: call a synchronous function where the engine runs, which saves the hop to a thread: for functions of
            microseconds only, since nothing else happens meanwhile.

    What is no score in [0, 1], or raises, is an error of that candidate, and stands in the trace.

    Raises:
        ConfigurationError: `function` cannot be called, or `aggregate` is not known.
    """

    def __init__(
        self,
        function: Callable[[Problem, Candidate], Any],
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

    def __repr__(self) -> str:
        return f"CallableVerifier({self.name})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free: a local function costs nothing. Solves inside it draw on the account that is around it."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """What the function says.

        Raises:
            InvalidScore: it returned something that is no score.
        """
        if self._inline:
            result = self._function(candidate.problem, candidate)
            result = await result if inspect.isawaitable(result) else result
        else:
            result = await call_user(self._function, candidate.problem, candidate)
        return as_score(result, self.name, self._aggregate)


def as_score(result: Any, who: str, how: Aggregate = "last") -> Score:
    """A function's result as a `Score`.

    Raises:
        InvalidScore: it is none of the forms that `CallableVerifier` names.
    """
    if isinstance(result, Score):
        return result
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
        scored = as_score(result[0], who, how)
        return replace(scored, feedback=result[1])
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
        f"{who} returned {str(result)[:80]!r} ({type(result).__name__}); return a bool, a number from 0 to 1, "
        "(score, feedback), step scores, or a Score"
    )


def _number(value: Any) -> float | None:
    """Booleans are 1 and 0; None for what is no number."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__") or hasattr(value, "__len__"):
        return None
    return float(value)
