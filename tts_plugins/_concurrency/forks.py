"""What a forked child must not inherit: locks that somebody held, threads and loops that do not run there.

A child has one thread, the one that forked. A lock that another thread held stays locked there for ever, and places,
reservations and jobs of other threads are phantoms that nobody gives back. So whoever keeps such state registers here
how it begins anew, with `lock()`, `on_fork` or `renew`; the one handler below runs all of that in the child.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["lock", "on_fork", "process", "renew"]


class Renewable(Protocol):
    """What begins anew in a child."""

    def renew(self) -> None:
        """Forget what belongs to the parent. It runs in the child, before anything else does."""
        ...


_functions: list[Callable[[], None]] = []
_renewables: dict[int, weakref.ref[Renewable]] = {}  # by identity: they may be unhashable, or equal to each other
_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_process = os.getpid()


def process() -> int:
    """The id of this process, without a system call."""
    return _process


def lock() -> threading.Lock:
    """A lock that is free in every child."""
    made = threading.Lock()
    _locks.add(made)
    return made


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
    global _process
    _process = os.getpid()
    _forget_imports()
    for each in list(_locks):
        each._at_fork_reinit()  # type: ignore[attr-defined]
    for function in _functions:
        function()
    for found in list(_renewables.values()):
        if (owner := found()) is not None:
            owner.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
