"""What a forked child must not inherit: locks that somebody held, threads and loops that do not run there.

A child has one thread, the one that forked. A lock that another thread held stays locked there for ever, and places,
reservations and jobs of other threads are phantoms that nobody gives back. So whoever keeps such state registers here
how it begins anew, with `lock()`, `on_fork` or `renew`; the one handler below runs all of that in the child.

A signal handler and a `__del__` run in the middle of whatever their thread does, and may find it the owner of a lock
that all others wait for; so locks know their owner, and code that waits for another thread can ask (`holds_up`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, NoReturn, Protocol

__all__ = ["holds_up", "leave", "lock", "on_fork", "pid", "renew"]


class Renewable(Protocol):
    """What begins anew in a child."""

    def renew(self) -> None:
        """Forget what belongs to the parent. It runs in the child, before anything else does."""
        ...


_functions: list[Callable[[], None]] = []
_renewables: dict[int, weakref.ref[Renewable]] = {}  # by identity: they may be unhashable, or equal to each other
_locks: weakref.WeakSet[Any] = weakref.WeakSet()
pid = os.getpid()
"""The id of this process, without a system call. Read it as `forks.pid`: a child sets it anew."""
# The functions of importlib that hold the one lock of all imports, of which nothing says who owns it.
_INSIDE_IMPORT_LOCK = {"_find_spec", "_get_module_lock", "_lock_unlock_module"}


def lock() -> Any:
    """Return a `threading.RLock` that is free in every child, and whose owner `holds_up` knows."""
    made = threading.RLock()
    _locks.add(made)
    return made


def holds_up(others: Collection[int]) -> bool:
    """Return whether this thread owns a lock of ours, or an import lock that one of the other threads waits for."""
    here = threading.get_ident()
    waits: dict[int, Any] = getattr(sys.modules.get("_frozen_importlib"), "_blocking_on", {})
    waited_for = [found for ident in others if (found := waits.get(ident)) is not None]
    imports = [each for found in waited_for for each in (found if isinstance(found, list) else [found])]
    if any(each.owner == here for each in imports) or any(each._is_owned() for each in list(_locks)):
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name not in _INSIDE_IMPORT_LOCK:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")


def leave(error: BaseException | None = None) -> NoReturn:
    """End this process: a child whose code has come back to a thread that works for loops of the parent.

    Nobody here waits for the outcome, and whatever else would run here runs in the parent already.

    Args:
        error: what the code raised, if it did; that of `sys.exit` has the status.
    """
    status = 0 if error is None else 1
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        status = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be closed, or None
            stream.flush()
    os._exit(status)


def on_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Run `function` in every child; for the state of modules, which lives as long as the program."""
    _functions.append(function)
    return function


def renew(owner: Renewable) -> None:
    """Call `owner.renew()` in every child, as long as the owner lives."""
    name = id(owner)
    _renewables[name] = weakref.ref(owner, lambda _: _renewables.pop(name, None))


def _forget_imports() -> None:
    """Undo the imports that other threads were in the middle of: nobody ends them here, and they stay locked."""
    machinery, here = sys.modules.get("_frozen_importlib"), threading.get_ident()
    locks: dict[str, Any] = getattr(machinery, "_module_locks", {})
    for name, found in list(locks.items()):
        held = found()
        if held is not None and getattr(held, "owner", None) not in (None, here):
            del locks[name]
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                del sys.modules[name]


def _in_child() -> None:
    global pid
    pid = os.getpid()
    _forget_imports()
    for each in list(_locks):
        each._at_fork_reinit()
    for function in _functions:
        function()
    for found in list(_renewables.values()):
        if (owner := found()) is not None:
            owner.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
