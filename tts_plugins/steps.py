"""Texts in steps, and back. Pure.

A step's text leaves its separator out, and `join` puts it back. `split` never loses a word: whatever is no separator
stands in some step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Candidate, Step

By = Literal["paragraph", "line", "numbered"]

_FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
# «Step 3:», «3.», «3)», «## Step 3», «**Step 3**»: the number begins a step and belongs to it.
_NUMBERED = re.compile(r"^(?=[ \t]*(?:#{1,6}[ \t]*)?(?:\*\*)?(?:step[ \t]+\d{1,3}\b|\d{1,3}[.)][ \t]))", re.M | re.I)


def split(text: str, by: By | re.Pattern[str] = "paragraph") -> tuple[Step, ...]:
    r"""The steps of a text; none of an empty one.

    Args:
        by: "paragraph" cuts at blank lines (as DVTS and most process verifiers do), "line" at line ends, "numbered"
            before «Step 2:» or «2.»; a compiled pattern cuts at its matches. A fenced code block is never cut by the
            first three.

    Raises:
        ConfigurationError: an unknown `by`, or a pattern that matches the empty text.

    >>> [step.text for step in split("First add.\n\nThen halve.")]
    ['First add.', 'Then halve.']
    """
    if isinstance(by, re.Pattern):
        if by.match(""):
            raise ConfigurationError(f"steps: by={by.pattern!r} matches the empty text; make it match a separator")
        places = [match.span() for match in by.finditer(text)]
    elif by in _PATTERNS:
        fences = _fences(text)
        places = [m.span() for m in _PATTERNS[by].finditer(text) if not any(a <= m.start() < b for a, b in fences)]
    else:
        raise ConfigurationError(f"steps: by={by!r} is not known; use 'paragraph', 'line', 'numbered' or a pattern")
    parts, start = list[str](), 0
    for a, b in places:
        parts.append(text[start:a])
        start = b
    return tuple(Step(part.strip("\n")) for part in [*parts, text[start:]] if part.strip())


def join(steps: Sequence[Step], separator: str = "\n\n") -> str:
    """The steps as one text."""
    return separator.join(step.text for step in steps)


def steps_of(candidate: Candidate, by: By | re.Pattern[str] = "paragraph") -> tuple[Step, ...]:
    """The candidate's own steps where it was searched in steps, else those of its text."""
    return candidate.steps or split(candidate.text, by)


_PATTERNS: dict[str, re.Pattern[str]] = {"paragraph": _BLANK, "line": re.compile(r"\n+"), "numbered": _NUMBERED}


def _fences(text: str) -> list[tuple[int, int]]:
    """Where code blocks are; one that is never closed runs to the end."""
    if "```" not in text and "~~~" not in text:
        return []
    marks = [match.start() for match in _FENCE.finditer(text)]
    if len(marks) % 2:
        marks.append(len(text))
    return list(zip(marks[::2], marks[1::2], strict=True))
