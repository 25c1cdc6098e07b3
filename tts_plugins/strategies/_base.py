from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from tts_plugins._internal.config import Configured
from tts_plugins.protocols import Run
from tts_plugins.types import Problem, Scored


class BaseStrategy(Configured, ABC):
    """Base of the strategies of this package: configured, and registered by name."""

    family: ClassVar[str] = "strategies"

    @abstractmethod
    async def __call__(self, run: Run, problem: Problem) -> Scored:
        """The chosen candidate."""
