"""Checks that may take for ever on a hostile text, within a time limit: in a process that can be ended."""

from __future__ import annotations

import atexit
import functools
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from tts_plugins.errors import VerifierError
from tts_plugins.verifiers._math_process import WorkerProcesses

_SHORT = 2_000  # characters in which a pattern with one repetition ends at once, even where it takes quadratic time


def ends_soon(pattern: re.Pattern[str], text: str) -> bool:
    """Whether a pattern surely needs no time limit on this text: it has one repetition or choice at most."""
    repeats = sum(pattern.pattern.count(sign) for sign in "*+?{|")
    return repeats == 0 or (repeats == 1 and len(text) <= _SHORT)


def last_match(pattern: re.Pattern[str], text: str) -> str | None:
    """Return what the pattern found last: its first group, or all of it where it has none."""
    last = next(iter(deque(pattern.finditer(text), maxlen=1)), None)
    return None if last is None else last[1] if pattern.groups else last[0]


def limited_here(request: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
    """Return what the worker replies, in the calling thread; None where it took too long."""
    reply = _processes(timeout).ask_here(request)
    return None if "error" in reply else reply


async def limited(who: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return what the worker replies (`worker` says to what).

    Raises:
        VerifierError: it took longer than `timeout` seconds, or could not be done.
    """
    reply = await _processes(timeout).ask(request)
    if "error" in reply:
        raise VerifierError(f"{who}: {reply['error']}; the pattern may backtrack without end on this text: simplify it")
    return reply


@functools.cache
def _processes(timeout: float) -> WorkerProcesses:
    made = WorkerProcesses("tts_plugins.verifiers._limited.worker", timeout=timeout, workers=2)
    atexit.register(made.close)
    return made
