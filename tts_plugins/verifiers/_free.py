"""What verifiers have in common that only compute."""

from __future__ import annotations

from tts_plugins.budget import FREE, Bound
from tts_plugins.types import Problem


class FreeVerifier:
    """A verifier that runs here and costs nothing."""

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return a bound of zero. What a check spends by itself, such as in a database, is not counted."""
        return FREE
