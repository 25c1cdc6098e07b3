"""The verifiers of an adapter's search: the search counts their model calls and translates their errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar, overload

from tts_plugins._internal.threads import way_of
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import TTSError, VerifierError
from tts_plugins.protocols import Run, SetVerifier, Verifier, is_set_verifier
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers.callable import CallableVerifier, as_score, was_given

T = TypeVar("T")


class Judging(Protocol):
    """A search, for its verifier. `BaseSearch` is one."""

    async def judge(
        self,
        candidates: Sequence[Candidate],
        where: str,
        work: Callable[[], Awaitable[T]],
        kind_of: Callable[[BaseException], Callable[[str], TTSError]],
    ) -> T:
        """Do the verification of these candidates, and translate what it raises."""
        ...

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """A candidate got its score."""
        ...

    def output_tokens(self) -> int | None:
        """Tokens at most of one candidate's output; None if it is not known."""
        ...


class FunctionVerifier:
    """A `CallableVerifier` of a function that an adapter made for one search: its signature needs no reading."""

    def __init__(self, function: Callable[[Problem, Candidate], Any], name: str) -> None:
        self.name, self._function, self._call = name, function, way_of(function)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free; the calls inside it are metered."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """What the function says."""
        return as_score(await self._call(self._function, candidate.problem, candidate), self.name)


@overload
def metered_verifier(inner: SetVerifier, search: Judging) -> SetVerifier: ...
@overload
def metered_verifier(inner: Verifier, search: Judging) -> Verifier: ...
@overload
def metered_verifier(inner: Verifier | SetVerifier, search: Judging) -> Verifier | SetVerifier: ...
def metered_verifier(inner: Verifier | SetVerifier, search: Judging) -> Verifier | SetVerifier:
    """A verifier whose calls go to the account of a search, and whose errors are translated by it."""
    return _OfSets(inner, search) if is_set_verifier(inner) else _OfOne(inner, search)  # type: ignore[arg-type]


class _OfOne:
    reserved: Bound | None = None  # for messages

    def __init__(self, inner: Verifier, search: Judging) -> None:
        self.name, self._inner, self._search = inner.name, inner, search
        self._is_function = isinstance(inner, CallableVerifier | FunctionVerifier)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        # A function is free, however long a text it reads: nobody has to find out how long.
        known = self._search.output_tokens() if tokens is None and not self._is_function else tokens
        self.reserved = await self._inner.bound(problem, known)
        return self.reserved

    async def score(self, run: Run, candidate: Candidate) -> Score:
        def kind_of(error: BaseException) -> Callable[[str], TTSError]:
            given = was_given(error, candidate) if self._is_function else ""
            return lambda text: VerifierError(text + given)

        where = f"{self.name}, candidate {candidate.index}"
        score = await self._search.judge([candidate], where, lambda: self._inner.score(run, candidate), kind_of)
        await self._search.scored(candidate, score)
        return score


class _OfSets:
    reserved: Bound | None = None  # for messages

    def __init__(self, inner: SetVerifier, search: Judging) -> None:
        self.name, self._inner, self._search = inner.name, inner, search

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        known = self._search.output_tokens() if tokens is None else tokens
        self.reserved = await self._inner.bound(problem, known)
        return self.reserved

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        search = self._search
        scores = await search.judge(
            candidates, self.name, lambda: self._inner.score_set(run, candidates), lambda error: VerifierError
        )
        for candidate, score in zip(candidates, scores, strict=False):
            await search.scored(candidate, score)
        return scores
