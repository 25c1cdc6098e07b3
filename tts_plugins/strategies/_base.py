from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from tts_plugins._internal.config import Configured
from tts_plugins.protocols import Run
from tts_plugins.types import Problem, Scored


class BaseStrategy(Configured, ABC):
    """Base of the strategies of this package: configured, and registered by name."""

    family: ClassVar[str] = "strategies"

    @property
    def needs_scores(self) -> bool:
        """Whether it goes by a verifier's scores; where not, candidates without one serve it as well."""
        return True

    @abstractmethod
    async def __call__(self, run: Run, problem: Problem) -> Scored:
        """The chosen candidate."""
