"""Whether a text has the form that a pattern describes."""

from __future__ import annotations

import re

from tts_plugins._internal.config import check_seconds
from tts_plugins.answers import without_thoughts
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Score
from tts_plugins.verifiers._free import FreeVerifier
from tts_plugins.verifiers._limited import ends_soon, limited


class RegexVerifier(FreeVerifier):
    """Scores 1 where the pattern is found in the candidate's text, outside of its thoughts, else 0.

    Args:
        pattern: a regular expression; anchor it with `^` and `$` where the whole text has to match.
        forbidden: score 1 where it is not found, instead.
        timeout: seconds for one search.

    A pattern that may backtrack without end (`(a+)+$`) is run in a process of its own, which is ended when its time is
    up; the candidate then has no score. Only patterns with one repetition or choice at most run here, on short texts.

    Raises:
        ConfigurationError: the pattern is not a regular expression, or the time is not positive.
    """

    name = "RegexVerifier"
    inline = True

    def __init__(self, pattern: str | re.Pattern[str], *, forbidden: bool = False, timeout: float = 10.0) -> None:
        try:
            self.pattern = re.compile(pattern)
        except (re.error, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigurationError(
                f"RegexVerifier: pattern={pattern!r} is not a regular expression: {error}; correct it"
            ) from error
        if not isinstance(self.pattern.pattern, str):
            raise ConfigurationError(f"RegexVerifier: pattern={pattern!r} must be a text, not bytes")
        check_seconds("RegexVerifier", "timeout", timeout)
        self.forbidden, self.timeout = forbidden, timeout

    def __repr__(self) -> str:
        return f"RegexVerifier({self.pattern.pattern!r})"

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0.

        Raises:
            VerifierError: the search took too long.
        """
        text = without_thoughts(candidate.text).strip()
        if ends_soon(self.pattern, text):
            match = self.pattern.search(text)
            found = None if match is None else match[0]
        else:
            request = {"do": "search", "pattern": self.pattern.pattern, "flags": self.pattern.flags, "text": text}
            found = (await limited(self.name, request, self.timeout))["found"]
        if (found is not None) != self.forbidden:
            return Score(value=1.0)
        said = (
            f"it must not hold {found!r:.80}"
            if found is not None
            else f"it does not match {self.pattern.pattern!r:.200}"
        )
        return Score(value=0.0, feedback=said)
