"""What a call of a language model has to know of the candidate, or of the verification, that it is part of.

A scope is an entry of DSPy's own settings. DSPy carries these into the threads of `dspy.Parallel` and `dspy.asyncify`,
which context variables do not reach, and `own_threads` carries the scope into others; and whatever adapter, callbacks,
usage tracker or language model a program sets there, it leaves this entry as it is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.dsp.utils.settings import main_thread_config, thread_local_overrides
from dspy.dsp.utils.utils import dotdict

from tts_plugins import Ledger
from tts_plugins.adapters import Attempts
from tts_plugins.metering import Meter

_SETTING = "tts_plugins_scope"
HINT = "hint_"
"""What the earlier attempts are called that a prompt shows; `dspy.Refine` calls its input field so."""


@dataclass(kw_only=True, slots=True, eq=False)
class Scope:
    """One candidate, or one verification.

    Attributes:
        meter: what pays for its calls.
        ledger: the account of the search, for searches in threads that lost their context variables.
        sample: the candidate's number, which keeps its calls apart from those of other candidates; of the path to it
            where searches are nested. None where nothing has to be kept apart: in a verification.
        temperature: for calls that set none, or 0; None leaves these as they are.
        attempts: earlier candidates that this one is to improve on.
        hints: texts that every prompt of the candidate shows: attempts at the whole program.
        running: the call of a language model (`interception.LMCall`) that this code is part of.
        written: what the candidate's calls wrote so far, where there are hints.
        lent: it was given to a thread that may outlive the candidate, and is then no part of it any more.
        around: DSPy's settings around it, from `enter` to `leave`.
    """

    meter: Meter
    ledger: Ledger | None
    sample: int | None = None
    temperature: float | None = None
    attempts: Attempts | None = None
    hints: tuple[str, ...] = ()
    running: Any = None
    written: list[str] | None = None
    lent: bool = False
    around: Any = None

    def enter(self, **settings: Any) -> None:
        """Set DSPy's settings with this scope, and with others, in the task or thread that will `leave` it."""
        self.around = _set(self, settings)

    def leave(self) -> None:
        """Set the settings that were there before; nothing is set in a task that closes the coroutine of another."""
        if standing() is self:
            thread_local_overrides.set(self.around)
        self.around = None

    def calling(self, call: Any) -> Scope:
        """Return the scope inside of a call; a model that this one asks in turn has been shown the hints already."""
        return Scope(
            meter=self.meter, ledger=self.ledger, sample=self.sample, temperature=self.temperature,
            attempts=self.attempts, running=call, written=self.written,
        )  # fmt: skip


NO_CALLS = object()
"""Stands in the place of a scope where no language model may be called."""


def scope_here() -> Scope | None:
    """Return the scope that this code runs in; None outside of a search.

    Raises:
        RuntimeError: no language model may be called here.
    """
    found = standing()
    if found is NO_CALLS:
        raise RuntimeError("no language model may be called here: an output is read for its vote")
    scope: Scope | None = found
    return None if scope is not None and scope.lent and scope.meter.closed else scope


def standing(name: str = _SETTING) -> Any:
    """Return what stands in the place of a scope here, to be handed on as it is.

    Args:
        name: of another one of DSPy's settings; inside of a scope, all of them stand in the same mapping.
    """
    return thread_local_overrides.get().get(name)


def _set(scope: Scope | object | None, settings: Mapping[str, Any]) -> Any:
    """Set DSPy's settings with this scope, and with others; return those that were set before.

    No token of the variable: it would be one more object for each call under way.

    It is `dspy.context`, in a third of its time and objects: each call of a candidate has its own settings. DSPy 3.0 to
    3.4 keep them in the same context variable.
    """
    before = thread_local_overrides.get()
    all_of_them = dotdict(main_thread_config)
    all_of_them.update(before)
    all_of_them.update(settings)
    all_of_them[_SETTING] = scope
    thread_local_overrides.set(all_of_them)
    return before


class scoped:
    """DSPy's settings with this scope, which may stand elsewhere too, and with others."""

    __slots__ = ("_held", "_scope")

    def __init__(self, scope: Scope | object | None, **settings: Any) -> None:
        self._scope = scope
        self._held: Any = settings

    def __enter__(self) -> None:
        self._held = _set(self._scope, self._held)

    def __exit__(self, *_: object) -> None:
        if standing() is self._scope:  # else a task closes the coroutine of another
            thread_local_overrides.set(self._held)


def keep_configured() -> None:
    """Let `dspy.configure`, called in a candidate, set what the rest of this candidate sees, and nothing else.

    DSPy allows the call on a single thread, and each candidate has another one.
    """
    kind = type(dspy.settings)
    plain = kind.configure
    if hasattr(plain, _SETTING):
        return

    @functools.wraps(plain)
    def configure(self: Any, **settings: Any) -> None:
        if standing() is None:
            plain(self, **settings)
        else:
            thread_local_overrides.set(dotdict({**thread_local_overrides.get(), **settings}))

    setattr(configure, _SETTING, True)
    kind.configure = configure
    dspy.configure = dspy.settings.configure


def ledger_around() -> Ledger | None:
    """Return the account of the search around this code, where DSPy's settings alone know of it."""
    scope = scope_here()
    return None if scope is None else scope.ledger


def derive(*path: object) -> int:
    """Return a number of 31 bits that depends on the path, and on nothing else."""
    digest = hashlib.blake2b("/".join(map(str, path)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
