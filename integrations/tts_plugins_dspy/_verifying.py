"""What scores candidates: a verifier of `tts_plugins`, a metric or reward function, or a module that judges."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dspy

from tts_plugins import Candidate, Problem, Score
from tts_plugins.adapters import as_score, call_user, cause_for, required_parameters, signature_of, takes, was_given
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError, InvalidScore, VerifierError
from tts_plugins.protocols import Run, SetVerifier, Verifier, is_set_verifier, is_verifier
from tts_plugins_dspy._rewards import Reward

if TYPE_CHECKING:
    from tts_plugins_dspy._search import Search


def check_verifier(owner: str, value: Any) -> None:
    """Refuse what is no verifier, and a function that could not be called as one, before anything is paid for.

    Raises:
        ConfigurationError: naming it.
    """
    if value is None or (isinstance(value, dspy.Module | Verifier | SetVerifier) and not isinstance(value, type)):
        return
    if isinstance(value, type) or not callable(value):
        raise ConfigurationError(
            f"{owner}: verifier={value!r} is no verifier; pass a metric, a function of the prediction, a dspy.Module "
            "that gives a score, or one of tts_plugins.verifiers"
        )
    reward = isinstance(value, Reward)
    function = value.function if reward else value
    if not takes(function, 2 if reward else _arguments(function)):
        name = getattr(function, "__name__", type(function).__name__)
        wanted = "(args, pred)" if reward else "(example, prediction), (example, prediction, trace), or the prediction"
        raise ConfigurationError(
            f"{owner}: {'reward_fn' if reward else 'verifier'} {name}{signature_of(function)} must take {wanted}"
        )


def _arguments(function: Callable[..., Any]) -> int:
    """How many a verifier is called with: the prediction; the example and it; or these and the trace."""
    wanted = required_parameters(function)
    return wanted if wanted in (1, 3) else 2


def verifying(verifier: Any, search: Search) -> Verifier | SetVerifier:
    """The verifier of one search."""
    if isinstance(verifier, dspy.Module):
        return OneByOne(_module(verifier, search), search)
    if is_set_verifier(verifier):
        return Together(verifier, search)
    if is_verifier(verifier):
        return OneByOne(verifier, search)
    return OneByOne(_function(verifier, search), search)


class OneByOne:
    """A verifier whose own calls are metered."""

    def __init__(self, inner: Verifier, search: Search) -> None:
        self.name, self._inner, self._search = inner.name, inner, search

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._inner.bound(problem, tokens)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        return (await self._search.metered("verifier", lambda: self._inner.score(run, candidate)))[0]


class Together:
    """A verifier of sets whose own calls are metered."""

    def __init__(self, inner: SetVerifier, search: Search) -> None:
        self.name, self._inner, self._search = inner.name, inner, search

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._inner.bound(problem, tokens)

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        return (await self._search.metered("verifier", lambda: self._inner.score_set(run, candidates)))[0]


def _function(function: Any, search: Search) -> Verifier:
    """A metric of (example, prediction[, trace]), a reward function, or a function of the prediction alone."""
    called = function.function if isinstance(function, Reward) else function
    name = str(getattr(function, "__name__", type(function).__name__))
    read = function.read if isinstance(function, Reward) else lambda value: _read(value, name)

    wanted = _arguments(called)

    def arguments(problem: Problem, candidate: Candidate) -> tuple[Any, ...]:
        if isinstance(function, Reward):
            return search.inputs, candidate.output
        if wanted == 1:
            return (candidate.output,)
        asked = _Asked(**search.inputs).with_inputs(*search.inputs)
        trace = search.traces.get(candidate.seed, [])
        return (asked, candidate.output, trace) if wanted == 3 else (asked, candidate.output)

    return scoring(search, name, called, arguments, read)


class _Asked(dspy.Example):  # type: ignore[misc]
    """The example of a metric: the inputs. Most metrics read a gold answer too, and hear why there is none."""

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


def scoring(
    search: Search,
    name: str,
    function: Callable[..., Any],
    arguments: Callable[[Problem, Candidate], tuple[Any, ...]],
    read: Callable[[Any], Any] = lambda value: value,
) -> Verifier:
    """A function as the verifier of a search, synchronous or not, called where its own model calls are counted.

    Args:
        arguments: what it is called with.
        read: from what it returns to what `CallableVerifier` takes.
    """

    def lost(error: BaseException, candidate: Candidate) -> BaseException:
        return search.lost(error, name, lambda text: VerifierError(text + was_given(error, candidate)))

    async def ascore(problem: Problem, candidate: Candidate) -> Any:
        with search.context(trace=[]):
            try:
                return read(await function(*arguments(problem, candidate)))
            except BaseException as error:  # noqa: BLE001 - raised again
                raise (found := lost(error, candidate)) from cause_for(found, error)

    def score(problem: Problem, candidate: Candidate) -> Any:
        with search.context(trace=[]):
            try:
                value = function(*arguments(problem, candidate))
                # An object or a wrapper that gives a coroutine: its model calls are still to come.
                return finished(value, candidate) if inspect.isawaitable(value) else read(value)
            except BaseException as error:  # noqa: BLE001 - raised again
                raise (found := lost(error, candidate)) from cause_for(found, error)

    async def finished(value: Awaitable[Any], candidate: Candidate) -> Any:
        with search.context(trace=[]):
            try:
                return read(await value)
            except BaseException as error:  # noqa: BLE001 - raised again
                raise (found := lost(error, candidate)) from cause_for(found, error)

    return _Function(ascore if inspect.iscoroutinefunction(function) else score, name)


class _Function:
    """A `CallableVerifier` of what was made here, for one search: its signature needs no reading."""

    def __init__(self, function: Callable[[Problem, Candidate], Any], name: str) -> None:
        self.name, self._function = name, function

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        return as_score(await call_user(self._function, candidate.problem, candidate), self.name)


def _module(judge: Any, search: Search) -> Verifier:
    """A module that is asked with those inputs and outputs that it has fields for."""
    name = type(judge).__name__

    def ask(candidate: Candidate) -> Any:
        output = candidate.output
        said = dict(output.items()) if isinstance(output, dspy.Example) else {"output": output}
        return judge(**_fitting(judge, {**search.inputs, **said}, name))

    return scoring(search, name, ask, lambda problem, candidate: (candidate,), lambda value: _read(value, name))


def _fitting(judge: Any, known: Mapping[str, Any], name: str) -> dict[str, Any]:
    predictors = judge.predictors()
    # Past DSPy's own access to `forward`, which warns of a call by that name; this is none.
    parameters = inspect.signature(object.__getattribute__(judge, "forward")).parameters
    wanted = [n for n, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not wanted and predictors:
        wanted = list(predictors[0].signature.input_fields)
    lacking = [n for n in wanted if n not in known and (n not in parameters or parameters[n].default is inspect._empty)]
    if lacking:
        raise VerifierError(
            f"{name}: its input {lacking[0]!r} is neither an input of the program nor a field of its prediction; those "
            f"are {', '.join(known)}"
        )
    return {n: known[n] for n in wanted if n in known}


def _read(value: Any, who: str) -> Any:
    """A verdict in a form that `CallableVerifier` takes: a prediction's `score` with its `feedback`.

    Raises:
        InvalidScore: a prediction without a score, or a score that is no number.
    """
    if not isinstance(value, dspy.Example):
        return value
    fields = dict(value.items())
    if "score" not in fields:
        raise InvalidScore(f"{who} gave {sorted(fields)} and no `score`; add an output field `score: float`")
    score = fields["score"]
    if isinstance(score, str):
        try:
            score = float(score)
        except ValueError:
            raise InvalidScore(f"{who} gave score={score[:80]!r}; declare the field as `score: float`") from None
    return score, str(fields.get("feedback") or fields.get("reasoning") or "")
