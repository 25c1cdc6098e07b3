"""What scores candidates: a verifier of `tts_plugins`, a function, or a runnable, in the candidate's own run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any, TypeGuard, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import BaseModel

from tts_plugins import Candidate, Problem
from tts_plugins.adapters import FunctionVerifier
from tts_plugins.errors import InvalidScore
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.verifiers import CallableVerifier
from tts_plugins_langchain._io.values import said_in
from tts_plugins_langchain._runs import awithin, within

ConfigOf = Callable[[Candidate], RunnableConfig]


def verifier_of(value: Any, config_of: ConfigOf, *, sync: bool) -> Verifier | SetVerifier:
    """The verifier of one search, from what its user gave.

    Args:
        config_of: the config for a runnable that scores this candidate.
        sync: whether a runnable's synchronous methods are called.
    """
    if isinstance(value, Runnable):
        return _runnable(value, config_of, sync=sync)
    return value if is_verifier(value) else CallableVerifier(value)


def is_verifier(value: Any) -> TypeGuard[Verifier | SetVerifier]:
    """Whether it is a verifier of `tts_plugins`; a plain function is known at once, a protocol takes longer."""
    return not isinstance(value, FunctionType | MethodType) and isinstance(value, Verifier | SetVerifier)


def _runnable(runnable: Runnable[Any, Any], config_of: ConfigOf, *, sync: bool) -> Verifier:
    name = runnable.get_name()

    async def ascore(problem: Problem, candidate: Candidate) -> Any:
        asked = _shown(problem, candidate)
        return _read(await awithin(config_of(candidate), runnable.ainvoke, asked), name)

    def score(problem: Problem, candidate: Candidate) -> Any:
        asked = _shown(problem, candidate)
        return _read(within(config_of(candidate), runnable.invoke, asked), name)

    return FunctionVerifier(score if sync else ascore, name)


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
        InvalidScore: a text that is not a number, or an object without a score.
    """
    if isinstance(value, BaseMessage):
        value = said_in(value)
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
