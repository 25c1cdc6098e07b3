"""The process that checks programs: it restricts itself, then forks once for every check. A line in, a line out.

It is sent its own source and that of what it imports from here, so that the sandbox need not show this package. It
ends when its input does, and so with the program that started it, however that ended.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import json
import os
import sys
import time
from typing import Any

from tts_plugins.verifiers._sandbox import kernel
from tts_plugins.verifiers._sandbox.attempt import Attempt, clear, write

_WARM = (
    "array ast bisect collections copy dataclasses datetime decimal enum fractions functools hashlib heapq "
    "itertools json math operator random re statistics string typing"
)


class Zygote:
    """The settings that came at its start, and its checks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.confined, self.memory, self.base = bool(settings["confined"]), int(settings["memory"]), settings["base"]
        self.version = kernel.landlock_version() if self.confined else 0
        self.program = kernel.seccomp_filter() if self.confined else b""
        self.reads = [(path, kernel.READ) for path in settings["reads"]]
        self.reads += [("/dev/null", kernel.USE), ("/dev/urandom", kernel.READ)]
        self.pending, self.cancelled, self.ended = b"", False, False

    def restrict(self) -> None:
        """Set what holds for this process, and so for all of its children."""
        os.makedirs(self.base, mode=0o700, exist_ok=True)
        if self.confined:
            kernel.no_privileges(mortal=False)
            if self.version:
                parent = (os.path.dirname(self.base), kernel.DROP)  # to remove its own folder at the end
                kernel.landlock(self.version, [*self.reads, (self.base, kernel.OWN), parent])
        for name in _WARM.split():
            __import__(name)
        for name in ("exit", "quit"):
            setattr(builtins, name, sys.exit)  # as `site` would set them, which stays out
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """Answer requests until the input ends."""
        try:
            while (line := self._line()) is not None:
                request = json.loads(line)
                if "program" in request:
                    self.cancelled = False
                    reply = {"id": request["id"], **self._check(request)}
                    write(1, json.dumps(reply).encode() + b"\n")
        finally:
            clear(self.base)
            with contextlib.suppress(OSError):
                os.rmdir(self.base)

    def _line(self) -> bytes | None:
        while b"\n" not in self.pending:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return None
            self.pending += chunk
        line, _, self.pending = self.pending.partition(b"\n")
        return line

    def _check(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the outcomes of all tests: None if passed, else why not. A test that ends its process fails alone."""
        tests: list[str] = request["tests"]
        outcomes: list[str | None] = []
        end = time.monotonic() + request["timeout"]
        self._heed(request)
        if self.cancelled:  # before it was begun
            return {"cancelled": True}
        while len(outcomes) < len(tests) or not tests:
            attempt = Attempt(self, request, len(outcomes), end)
            attempt.run()
            if attempt.refused:
                return {"refused": attempt.refused}
            if attempt.unwanted:
                return {"cancelled": True}
            outcomes += attempt.outcomes
            if attempt.done:
                break
            why = attempt.trouble
            if not attempt.loaded and not outcomes:
                return {"broken": why, "outcomes": [f"the program does not load: {why}"] * len(tests)}
            if not tests:
                return {"broken": why, "outcomes": []}
            if len(outcomes) < len(tests):
                outcomes.append(why)
            if time.monotonic() >= end:
                late = f"not reached within timeout={request['timeout']:g} s"
                outcomes += [late] * (len(tests) - len(outcomes))
        return {"outcomes": outcomes}

    def listen(self, request: dict[str, Any]) -> None:
        """Read what arrives while a check runs: a cancellation, or the end of the input."""
        chunk = os.read(0, 1 << 16)
        self.pending += chunk
        self.ended = self.ended or not chunk
        self._heed(request)

    def _heed(self, request: dict[str, Any]) -> None:
        *lines, self.pending = self.pending.split(b"\n")
        wanted_stop = any(json.loads(line).get("cancel") == request["id"] for line in lines if line)
        self.cancelled = self.cancelled or self.ended or wanted_stop


def main(settings: dict[str, Any]) -> None:
    """Run until the input ends; the first line out says whether it can work."""
    try:
        zygote = Zygote(settings)
        zygote.restrict()
    except Exception as error:  # noqa: BLE001 - the process that started it decides
        write(1, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        sys.exit(1)
    write(1, json.dumps({"ready": True, "landlock": zygote.version}).encode() + b"\n")
    zygote.serve()
