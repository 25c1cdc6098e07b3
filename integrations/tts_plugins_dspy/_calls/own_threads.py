"""Threads that a program starts itself: what they call is a part of the candidate that started them.

DSPy's settings reach the threads of `dspy.Parallel` and `dspy.asyncify`, but not those of an executor or of
`threading.Thread`. A bare program calls its models there all the same, if they were set by `dspy.configure`. Without
the scope, such calls would be on no account, and DSPy's cache would give each candidate the same answers. So executors
and threads, as they are given work in a candidate, are given its scope with it, and nothing else. Outside of a search
they do what they did.
"""

from __future__ import annotations

import concurrent.futures.thread as executors
import contextlib
import functools
import threading
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from typing import Any

from tts_plugins_dspy._calls.interception import Refused
from tts_plugins_dspy._calls.scope import Scope, scoped, standing

_CARRIES = "_tts_plugins_carries"
_POOLED = getattr(executors, "_worker", None)  # what the threads of an executor run, which outlive the work


def carry_into_threads() -> None:
    """Let the work that candidates give to executors and threads carry their scope; once for each class.

    The first search does it, so that importing the package changes nothing of the interpreter's.
    """
    for kind, name, carrying in (
        (executors.ThreadPoolExecutor, "submit", _submitting),
        (threading.Thread, "start", _starting),
    ):
        plain = vars(kind)[name]
        if not hasattr(plain, _CARRIES):
            made = carrying(plain)
            setattr(made, _CARRIES, True)
            setattr(kind, name, made)


def _submitting(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if _has_context(fn) or (scope := standing()) is None:
            return plain(self, fn, *args, **kwargs)
        return plain(self, _within, scope, fn, *args, **kwargs)

    return submit


def _starting(plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def start(self: Any) -> Any:
        scope = standing()
        if scope is not None and not _is_pooled(self):
            lent = replace(scope, lent=True) if isinstance(scope, Scope) else scope
            self.run = functools.partial(_run, lent, self, vars(self).get("run"))
        return plain(self)

    return start


def _within(scope: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with scoped(scope):
        return function(*args, **kwargs)


def _run(scope: Any, thread: Any, own: Callable[[], None] | None) -> None:
    del thread.run  # it refers to the thread, which would then be freed by the collector of circles alone
    if own is not None:
        thread.run = own
    with contextlib.suppress(Refused):  # the candidate, which has the meter, says so
        _within(scope, thread.run)


def _has_context(function: Any) -> bool:
    """Whether it runs in a context of its own, as `asyncio.to_thread` does, and `dspy.RLM`."""
    return isinstance(getattr(getattr(function, "func", function), "__self__", None), Context)


def _is_pooled(thread: Any) -> bool:
    """Whether it works for others too, who each say what is theirs."""
    return getattr(thread, "_target", None) is _POOLED or thread.name.startswith("tts-plugins")
