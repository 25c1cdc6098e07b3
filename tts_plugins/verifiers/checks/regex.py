"""Whether a text has the form that a pattern describes."""

from __future__ import annotations

import re

from tts_plugins.answers import without_thoughts
from tts_plugins.budget import FREE, Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score


class RegexVerifier:
    """Scores 1 where the pattern is found in the candidate's text, outside of its thoughts, else 0.

    Args:
        pattern: a regular expression; anchor it with `^` and `$` where the whole text has to match.
        forbidden: score 1 where it is not found, instead.

    Patterns are run where the engine runs: one that backtracks without end (`(a+)+$`) stops all solves.

    Raises:
        ConfigurationError: the pattern is not a regular expression.
    """

    name = "RegexVerifier"
    inline = True

    def __init__(self, pattern: str | re.Pattern[str], *, forbidden: bool = False) -> None:
        try:
            self.pattern = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ConfigurationError(
                f"RegexVerifier: pattern={pattern!r} is not a regular expression: {error}; correct it"
            ) from error
        if not isinstance(self.pattern.pattern, str):
            raise ConfigurationError(f"RegexVerifier: pattern={pattern!r} must be a text, not bytes")
        self.forbidden = forbidden

    def __repr__(self) -> str:
        return f"RegexVerifier({self.pattern.pattern!r})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Free: it runs here."""
        return FREE

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0."""
        found = self.pattern.search(without_thoughts(candidate.text).strip())
        if bool(found) != self.forbidden:
            return Score(value=1.0)
        said = f"it must not hold {found[0]!r:.80}" if found else f"it does not match {self.pattern.pattern!r:.200}"
        return Score(value=0.0, feedback=said)
