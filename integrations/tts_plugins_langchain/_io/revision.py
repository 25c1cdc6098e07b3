"""Check, before any call, that a runnable has what a strategy needs: a place for earlier attempts, or single steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import BasePromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough, RunnableSequence
from langchain_core.runnables.passthrough import RunnableAssign

from tts_plugins import Problem, Scored
from tts_plugins.adapters import REVISING, STEPWISE
from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.attempt_inputs import Carrier, Function, State, Turns, Variables
from tts_plugins_langchain._io.parts import main_part

Revised = str | Callable[[Problem, Sequence[Scored]], Any] | None


def check_revision(owner: str, value: Any) -> Any:
    """Return the `revision` setting.

    Raises:
        ConfigurationError: it is neither a name nor a function.
    """
    if value is not None and not isinstance(value, str) and not callable(value):
        raise ConfigurationError(
            f"{owner}: revision={value!r} is neither a prompt's variable nor a function; leave it out, or pass "
            "'attempts', or a function of (problem, attempts) that returns the input"
        )
    return value


def carrier_of(owner: str, runnable: Runnable[Any, Any], revision: Revised) -> Carrier:
    """Return the way to show attempts to this runnable."""
    if callable(revision):
        return Function(revision)
    found = _entrance(runnable)
    if isinstance(found, BasePromptTemplate):
        return Variables(owner, found, revision)
    if revision is not None:
        return Variables(owner, None, revision)
    if isinstance(found, BaseChatModel):
        return Turns()
    return State(owner, "messages" in getattr(found, "channels", ()))


def check_strategy(owner: str, strategy: Any, carrier: Carrier, no_steps: str | None) -> None:
    """Raise, before anything is spent, if the wrapped runnable cannot serve the strategy.

    Args:
        no_steps: what to use instead of a search over steps, which it calls `BeamSearch`; None if steps are possible.

    Raises:
        ConfigurationError: it cannot; the text says what to change.
    """
    if no_steps is not None and isinstance(strategy, STEPWISE):
        kind = type(strategy).__name__
        raise ConfigurationError(
            f"{owner}: {kind} searches over single steps, and this gives whole answers; "
            + no_steps.replace("BeamSearch", kind)
        )
    if isinstance(strategy, REVISING):
        carrier.check()


def _entrance(runnable: Any) -> Any:
    """Return the part that an input reaches first; parts that pass it on unchanged are skipped."""
    runnable = main_part(runnable)
    if isinstance(runnable, RunnableSequence):
        steps = [step for step in runnable.steps if not isinstance(step, RunnableAssign | RunnablePassthrough)]
        return _entrance(steps[0]) if steps else runnable
    return runnable
