"""Waits of solves that do not know what they run inside: those on threads of a user's function.

Such a solve carries no account and no enclosers, so the wait graph would assume that the function's own reservation
will be released. Here the frames of functions and threads are compared while something waits (see
`_concurrency.running_code`), and the enclosers that are found are added to the graph, whose proof then covers them.
So are all calls of an event loop that is blocked by code which waits for a solve elsewhere.
A wait that frames do not explain ends too: after 120 seconds in which nothing was reserved or released, all functions
of the user are assumed to wait, and where that was so, the next such wait ends after a tenth of the time. The
environment's `TTS_PLUGINS_LONGEST_WAIT` gives another number of seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from weakref import WeakKeyDictionary

from tts_plugins._calls import running_solves
from tts_plugins._calls.context import SCOPE, Scope
from tts_plugins._calls.places import Place
from tts_plugins._calls.running_solves import give_up_orphans
from tts_plugins._concurrency import forks, running_code
from tts_plugins._concurrency.running_code import Variables
from tts_plugins._concurrency.sync_calls import all_waiting_threads, calling_thread, waiting_threads
from tts_plugins._concurrency.wait_graph import GRAPH, Holder, Wait, deliver
from tts_plugins.errors import ConfigurationError
from tts_plugins.ledger import Hold, Ledger

running_code.read(SCOPE)
LOOK = 0.25  # seconds between looks, one for all waits on a loop
LONGEST = 120.0  # seconds


def longest_wait() -> float:
    """Return the seconds after which a wait that nothing explains ends.

    Raises:
        ConfigurationError: the environment's setting is not a number of seconds above 0.
    """
    given = os.environ.get("TTS_PLUGINS_LONGEST_WAIT")
    if not given:
        return LONGEST
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"TTS_PLUGINS_LONGEST_WAIT={given!r} must be a number of seconds above 0")
    return seconds


class _Watch:
    """The waits on one loop, each with the threads that wait for its solve, or the one that it runs on."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.waits: dict[Wait, tuple[int, ...]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self._changes, self._since, self._longest = -1, 0.0, longest_wait()
        self._patience = self._longest

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Add enclosers that have become known, and end what has waited too long without a chance."""
        self.timer = loop.call_later(LOOK, self.look, loop) if self.waits else None
        give_up_orphans()
        if not self.waits:
            return
        waiting = {threads[-1] for watch in list(_watches.values()) for threads in list(watch.waits.values())}
        seen = _Seen(self.thread, waiting)
        known: dict[tuple[int, ...], list[Holder]] = {}
        for wait, threads in list(self.waits.items()):
            if threads not in known:
                known[threads] = list(seen.enclosers(threads))
            if holders := known[threads]:
                with GRAPH.lock:
                    GRAPH.enclose(wait, holders)
                    answers = GRAPH.settle()
                deliver(answers)
        if self._changes != GRAPH.changes or not running_code.contexts():
            self._changes, self._since = GRAPH.changes, time.monotonic()
        elif time.monotonic() - self._since > self._patience:
            self._end_one()

    def _end_one(self) -> None:
        scopes = [scope for context in running_code.contexts() if (scope := context.get(SCOPE)) is not None]
        with GRAPH.lock:
            stuck, count = GRAPH.dead({h for scope in scopes for h in _enclosers(scope)})
            waited = dict.fromkeys(wait.at for wait in self.waits if wait.at is not None)
            resources = [r for r in waited if count[r] >= r.holders]
            if resources:
                GRAPH.end_one(stuck, resources)
                self._patience = self._longest / 10
            answers = GRAPH.settle()
        deliver(answers)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
forks.on_fork(_watches.clear)


@contextlib.contextmanager
def watched(wait: Wait, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Look after a wait of the running task as long as it lasts."""
    if (watch := _watches.get(loop)) is None:
        watch = _watches[loop] = _Watch()
    watch.waits[wait] = waiting_threads() or (watch.thread,)
    if watch.timer is None:
        watch.timer = loop.call_later(LOOK, watch.look, loop)
    try:
        give_up_orphans()
        yield
    finally:
        del watch.waits[wait]
        if not watch.waits and watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None


def note_escape() -> None:
    """Count a solve that runs here without an account for the solves whose functions wait for this thread."""
    for contexts, _ in running_code.waiting_for([calling_thread()]).values():
        for scope in _scopes(contexts):
            scope.ledger.escaped += 1


def escape_warnings(ledger: Ledger) -> tuple[str, ...]:
    """Return what a solve says of solves that ran inside it without its account."""
    if not ledger.escaped:
        return ()
    count = f"{ledger.escaped} solve{' that ran' if ledger.escaped == 1 else 's that ran'}"
    return (
        f"{count} on threads that this search's functions started did not carry its account, so its budget does not "
        "count them: start such work with carry_account(function)",
    )


class _Seen:
    """Who waits for whom, at the moment of one look.

    Args:
        here: the thread that looks, whose loop goes on.
        waiting: the threads that wait for solves which wait.
    """

    def __init__(self, here: int, waiting: Collection[int]) -> None:
        self._here = here
        self._solves, self._functions = running_solves.by_thread(), running_code.by_thread()
        threads = {here, *waiting, *all_waiting_threads()}
        self._found = running_code.waiting_for(threads, waiting, self._solves.keys() - {here})

    def enclosers(self, threads: Sequence[int]) -> Iterator[Holder]:
        """Yield what cannot end before a wait does.

        A thread that waits holds up the loop that runs on it, with all solves and functions there: `solve_sync` inside
        a running event loop, as in a notebook, holds up what other cells have begun. And it holds up whoever waits for
        it in turn.

        Args:
            threads: those that wait for the solve whose wait it is, or the one that it runs on.
        """
        contexts, blocked, todo = list[Variables](), set[int](), list(threads)
        while todo:
            if (thread := todo.pop()) in blocked:
                continue
            blocked.add(thread)
            functions, waiting = self._found.get(thread, ((), ()))
            more = [*functions, *(() if thread == self._here else self._functions.get(thread, ()))]
            contexts += more
            todo += [*waiting, *(each for context in more for each in waiting_threads(context))]
        blocked.discard(self._here)
        for solve in (solve for thread in blocked for solve in self._solves.get(thread, ())):
            yield from solve.holders()
        for watch in list(_watches.values()):
            if watch.thread in blocked:
                for wait in list(watch.waits):
                    yield from _given(wait.answer)
        for scope in _scopes(contexts):
            yield from _enclosers(scope)


def _given(answer: object) -> Iterator[Holder]:
    """Yield what a wait got that its loop has not heard of."""
    if isinstance(answer, Hold | Place) and answer.open:
        yield answer
        yield from answer.enclosers()


def _scopes(contexts: Iterable[Variables]) -> list[Scope]:
    return [scope for context in contexts if (scope := context.get(SCOPE)) is not None]


def _enclosers(scope: Scope) -> Iterator[Holder]:
    if scope.hold is not None:
        yield from scope.hold.enclosers()
