"""A function of your own as the generator: any chain, module or client that this package has no adapter for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tts_plugins._internal.config import check_count, check_price
from tts_plugins._internal.signatures import signature_of
from tts_plugins._internal.threads import call_user
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import ConfigurationError, MalformedResponse
from tts_plugins.types import Generation, Problem, Reply, Scored, Usage


class CallableModel:
    """A function from a problem's content to a solution, called once for each candidate.

    Args:
        function: synchronous (then it runs on a thread of its own) or asynchronous. It gets the problem's content,
            and `seed=` if it has such a parameter. It returns a text, a `Generation`, any other object (which
            becomes the candidate's `output`), or a pair of one of these and a `Usage`.
        name: as it appears in traces; the function's own name if left out.
        max_tokens: tokens of one solution at most; needed under a token or money budget, since what the function
            does not report is charged at this bound.
        concurrency: calls in flight at most.
        price: US dollars per million prompt tokens and per million completion tokens, if it is paid for.
        revise: a function from the content and earlier attempts (`Scored`, the latest last, with `text`, `score` and
            `feedback`) to a better solution; it also gets `seed=` and `merge=` if it has such parameters, and
            returns what `function` may.
        revision: instead of that, from a `Problem` and earlier attempts to the content that `function` is called with:
            a prompt variable that carries them, a hint field.

    A call counts as 1 in budgets, unless the function runs solves itself: those draw on the same account, and
    the call costs what they cost. A `Usage` that it returns then is that of the whole call, those solves included:
    what they have paid is subtracted; if it is less than that, it is taken for the function's own part.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        max_tokens: int | None = None,
        concurrency: int | None = None,
        price: tuple[float, float] = (0.0, 0.0),
        revise: Callable[..., Any] | None = None,
        revision: Callable[[Problem, Sequence[Scored]], Any] | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"CallableModel: function={function!r} cannot be called; pass a function")
        check_price("CallableModel", price)
        if max_tokens is not None:
            check_count("CallableModel", "max_tokens", max_tokens)
        for what, given in (("revise", revise), ("revision", revision)):
            if given is not None and not callable(given):
                raise ConfigurationError(f"CallableModel: {what}={given!r} cannot be called; pass a function")
        if revise is not None and revision is not None:
            raise ConfigurationError("CallableModel: revise= and revision= are two ways to the same; give one of them")
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self.limits = Limits(concurrency=concurrency)
        self.batch = 1
        self._function, self._max_tokens, self._price = function, max_tokens, price
        self._revise, self._revision = revise, revision
        self._taken: dict[tuple[bool, str], bool] = {}

    @once_made
    def __repr__(self) -> str:
        return f"CallableModel({self.name})"

    async def bound(self, problem: Problem) -> Bound:
        """Return one call: the content's bytes and `max_tokens` if that is set, else unbounded in tokens."""
        if self._max_tokens is None:
            return Bound(completion_tokens=None)
        prompt = len(str(problem.content).encode("utf-8", "replace")) + 64
        usd = (prompt * self._price[0] + self._max_tokens * self._price[1]) / 1e6
        return Bound(prompt_tokens=prompt, completion_tokens=self._max_tokens, usd=usd)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Return the function's result for the first seed.

        Raises:
            MalformedResponse: it returned None.
        """
        return await self._called(self._function, problem.content, seed=seeds[0])

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> Bound:
        """Return the bound of a solution, plus the attempts' bytes.

        Raises:
            ConfigurationError: neither `revise` nor `revision` was given.
        """
        if self._revision is not None:
            return await self.bound(Problem(self._revision(problem, history)))
        if self._revise is None:
            raise ConfigurationError(
                f"{self.name}: a function alone cannot revise; give CallableModel revise=function(content, attempts), "
                "or revision=function(problem, attempts) that returns the content to call it with"
            )
        return await self.bound(Problem([problem.content, *(a.text + a.feedback for a in history)]))

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        """Return the result of `revise`, or of the function for the content that `revision` builds."""
        if self._revision is not None:
            return await self._called(self._function, self._revision(problem, history), seed=seeds[0])
        assert self._revise is not None
        return await self._called(self._revise, problem.content, list(history), seed=seeds[0], merge=merge)

    async def _called(self, function: Callable[..., Any], *arguments: Any, **known: Any) -> Reply:
        taken = {name: value for name, value in known.items() if self._takes(function, name, len(arguments))}
        result = await call_user(function, *arguments, **taken)
        usage: Usage | None = None
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Usage):
            result, usage = result[0], self._counted(result[1])
        if result is None:
            raise MalformedResponse(f"{self.name}: the function returned None; it must return a solution")
        return Reply(generations=(as_generation(result),), usage=usage)

    def _takes(self, function: Callable[..., Any], name: str, after: int) -> bool:
        key = (function is self._revise, name)
        if key not in self._taken:
            self._taken[key] = _takes(function, name, after)
        return self._taken[key]

    def _counted(self, usage: Usage) -> Usage:
        """Return the function's reported usage, counted as a call, and priced by its tokens if it names no price."""
        usd = usage.usd
        if usd == 0 and any(self._price):
            usd = (usage.prompt_tokens * self._price[0] + usage.completion_tokens * self._price[1]) / 1e6
        return replace(usage, calls=max(usage.calls, 1), usd=usd)


def as_generation(result: Any) -> Generation:
    """Return a function's result as a generation; an object that is not a text becomes its output, with a text."""
    if isinstance(result, Generation):
        return result
    if isinstance(result, str):
        return Generation(text=result)
    if isinstance(result, dict | list):
        try:
            return Generation(text=json.dumps(result, ensure_ascii=False), output=result)
        except (TypeError, ValueError):  # it holds what JSON has no form for
            return Generation(text=str(result), output=result)
    texts = [t for t in (getattr(result, "text", None), getattr(result, "content", None)) if isinstance(t, str)]
    return Generation(text=next(filter(None, texts), texts[0] if texts else str(result)), output=result)


def _takes(function: Callable[..., Any], name: str, after: int) -> bool:
    """Return whether it has a parameter of this name, past those that take the arguments by place."""
    if (signature := signature_of(function)) is None:
        return False
    kinds = {p.name: (p.kind, i) for i, p in enumerate(signature.parameters.values())}
    kind, place = kinds.get(name, (None, 0))
    return kind is inspect.Parameter.KEYWORD_ONLY or (
        kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and place >= after
    )
