"""What scores candidates: a verifier of `tts_plugins`, a function, or a runnable, in the candidate's own run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from pydantic import BaseModel

from tts_plugins import Candidate, Problem, Score
from tts_plugins.adapters import was_given
from tts_plugins.budget import Bound
from tts_plugins.errors import InvalidScore, TTSError, VerifierError
from tts_plugins.protocols import Run, SetVerifier, Verifier
from tts_plugins.verifiers import CallableVerifier
from tts_plugins_langchain._runs import awithin, within

if TYPE_CHECKING:
    from tts_plugins_langchain._search import Search
    from tts_plugins_langchain._settings import AnyVerifier

T = TypeVar("T")


def verifying(verifier: AnyVerifier, search: Search) -> Verifier | SetVerifier:
    """The verifier of one search."""
    if isinstance(verifier, Runnable):
        return _One(_runnable(verifier, search), search)
    if isinstance(verifier, SetVerifier):
        return _All(verifier, search)
    return _One(verifier if isinstance(verifier, Verifier) else CallableVerifier(verifier), search)


class _One:
    def __init__(self, inner: Verifier, search: Search) -> None:
        self.name, self._inner, self._search = inner.name, inner, search

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._inner.bound(problem, tokens)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        def kind_of(error: BaseException) -> Callable[[str], TTSError]:
            given = was_given(error, candidate) if isinstance(self._inner, CallableVerifier) else ""
            return lambda text: VerifierError(text + given)

        search, where = self._search, f"{self.name}, candidate {candidate.index}"
        score = await _metered(search, [candidate], where, lambda: self._inner.score(run, candidate), kind_of)
        await search.scored(candidate, score)
        return score


class _All:
    def __init__(self, inner: SetVerifier, search: Search) -> None:
        self.name, self._inner, self._search = inner.name, inner, search

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return await self._inner.bound(problem, tokens)

    async def score_set(self, run: Run, candidates: Sequence[Candidate]) -> Sequence[Score]:
        search = self._search
        scores = await _metered(search, candidates, self.name, lambda: self._inner.score_set(run, candidates))
        for candidate, score in zip(candidates, scores, strict=False):
            await search.scored(candidate, score)
        return scores


async def _metered(
    search: Search,
    candidates: Sequence[Candidate],
    where: str,
    score: Callable[[], Awaitable[T]],
    kind_of: Callable[[BaseException], Callable[[str], TTSError]] = lambda error: VerifierError,
) -> T:
    """The scores of candidates, whose runs end with an error where there are none."""

    async def work() -> T:
        try:
            return await score()
        except BaseException as error:  # noqa: BLE001 - `lose` raises
            search.lose(error, where, kind_of(error))  # here, where the meter is the verification's own

    try:
        return (await search.metered("verifier", search.salt, work))[0]
    except BaseException as error:
        for candidate in candidates:
            await search.unscored(candidate, error)
        raise


def _runnable(runnable: Runnable[Any, Any], search: Search) -> Verifier:
    name = runnable.get_name()

    def config_of(candidate: Candidate) -> RunnableConfig:
        sample = search.sample_of(candidate)
        return ensure_config() if sample is None or sample.run is None else search.runs.inside(sample, "verifier")

    async def ascore(problem: Problem, candidate: Candidate) -> Any:
        asked = _shown(problem, candidate)
        return _read(await awithin(config_of(candidate), lambda config: runnable.ainvoke(asked, config)), name)

    def score(problem: Problem, candidate: Candidate) -> Any:
        asked = _shown(problem, candidate)
        return _read(within(config_of(candidate), lambda config: runnable.invoke(asked, config)), name)

    return CallableVerifier(score if search.sync else ascore, name=name)


def _shown(problem: Problem, candidate: Candidate) -> dict[str, Any]:
    """What a runnable is asked: the chain's input, the candidate's output, and both as text."""
    return {
        "input": problem.metadata.get("input", problem.content),
        "output": candidate.output,
        "question": problem.text,
        "text": str(candidate.text),
        "answer": candidate.answer,
    }


def _read(value: Any, who: str) -> Any:
    """A runnable's output in a form that `CallableVerifier` takes: numbers in texts, and `score` with `feedback`.

    Raises:
        InvalidScore: a text that is no number, or an object without a score.
    """
    if isinstance(value, BaseMessage):
        value = str(value.text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise InvalidScore(
                f"{who} said {value[:80]!r}; a verifier has to give a number from 0 to 1: parse it, or ask for a "
                "structured output with `score` and `feedback`"
            ) from None
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        if "score" not in value:
            raise InvalidScore(f"{who} gave {sorted(map(str, value))} and no `score`; add a field of that name")
        feedback = value.get("feedback") or value.get("reasoning") or ""
        return (cast(Any, value["score"]), str(feedback))
    return value
