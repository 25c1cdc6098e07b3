"""What workers make: models that log what they are asked, and work that tells its CPU time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_plugins import Candidate, Problem
from tts_plugins.engine.many import Handler, Work
from tts_plugins.ledger import Ledger
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.scripted import ScriptedModel


def perfect(problem: Problem, candidate: Candidate) -> float:
    """A verifier that costs nothing."""
    return 1.0


def scripted(latency: float = 0.0) -> ScriptedModel:
    """A model without a server."""
    return ScriptedModel(["The answer is 4."], latency=latency)


def over_http(base_url: str) -> OpenAICompatibleModel:
    """A model on the loopback server, one choice in each request."""
    return OpenAICompatibleModel("m", base_url=base_url, api_key="-", max_tokens=16, batch=1)


class Logged(ScriptedModel):
    """A model that writes down each call, in one write: when, of what, and in which process."""

    def __init__(self, log: str, latency: float) -> None:
        super().__init__(["The answer is 4."], latency=latency)
        self._log = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
        """Log, then answer."""
        os.write(self._log, f"{time.monotonic()} {problem.id} {os.getpid()}\n".encode())
        return await super().generate(problem, seeds)


@dataclass(frozen=True)
class Timed:
    """Work that writes the CPU time of its process into a file when it ends."""

    work: Work
    folder: Path

    def __call__(self, ledger: Ledger | None) -> Handler:
        """Start the clock, and make the work's handler."""
        started = time.process_time()
        return _Timed(self.work(ledger), self.folder, started)


class _Timed:
    def __init__(self, handler: Handler, folder: Path, started: float) -> None:
        self._handler, self._folder, self._started = handler, folder, started

    async def __call__(self, job: Any) -> Any:
        return await self._handler(job)

    async def aclose(self) -> None:
        close = getattr(self._handler, "aclose", None)
        if close is not None:
            await close()
        seconds = time.process_time() - self._started
        (self._folder / f"cpu-{os.getpid()}").write_text(str(seconds))
