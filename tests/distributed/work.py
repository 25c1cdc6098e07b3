"""What workers import: models and verifiers that a worker makes from recipes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tts_plugins import Candidate, Problem
from tts_plugins.budget import Limits
from tts_plugins.testing.scripted import ScriptedModel


def perfect(problem: Problem, candidate: Candidate) -> float:
    return 1.0


def refuses(problem: Problem, candidate: Candidate) -> float:
    if problem.text == "40":
        raise ValueError("not this one")
    return 1.0


def model(latency: float = 0.0, limits: Limits | None = None, **more: Any) -> ScriptedModel:
    return ScriptedModel(lambda problem, number: f"{problem.text}: {number}", latency=latency, limits=limits, **more)


def names_its_process(latency: float = 0.0) -> ScriptedModel:
    return ScriptedModel([f"in {os.getpid()}"], latency=latency)


class Deadly(ScriptedModel):
    """A model whose process is killed, the first time that it is asked a problem with this text."""

    def __init__(self, text: str, once: str | None) -> None:
        super().__init__(lambda problem, number: problem.text, latency=0.005)
        self._text, self._once = text, once

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Any:
        reply = await super().generate(problem, seeds)
        if problem.text == self._text and self._first():
            os.kill(os.getpid(), signal.SIGKILL)
        return reply

    def _first(self) -> bool:
        if self._once is None:
            return True
        try:
            Path(self._once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
