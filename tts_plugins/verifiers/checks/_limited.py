"""Checks that may take for ever on a hostile text, within a time limit: in a process that can be ended."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Mapping
from typing import Any

from tts_plugins.errors import VerifierError
from tts_plugins.verifiers._math_process import WorkerProcesses


async def limited(who: str, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Return what the worker replies (`_worker` says to what).

    Raises:
        VerifierError: it took longer than `timeout` seconds, or could not be done.
    """
    reply = await _processes(timeout).ask(request)
    if "error" in reply:
        raise VerifierError(f"{who}: {reply['error']}; the pattern may backtrack without end on this text: simplify it")
    return reply


@functools.cache
def _processes(timeout: float) -> WorkerProcesses:
    made = WorkerProcesses("tts_plugins.verifiers.checks._worker", timeout=timeout, workers=2)
    atexit.register(made.close)
    return made
