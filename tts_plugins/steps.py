"""Texts in steps, and back. Pure.

A step's text leaves its separator out, and `join` puts it back. `split` never loses a word: whatever is not a separator
stands in some step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

from tts_plugins.answers import marker_pattern
from tts_plugins.errors import ConfigurationError
from tts_plugins.types import Candidate, Step

By = Literal["paragraph", "line", "numbered"]

_BLANK = r"\r?\n[ \t]*(?:\r?\n[ \t]*)+"
_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})", re.MULTILINE)
_MATHS = re.compile(r"\$\$|\\\[|\\\]|\\(?P<what>begin|end)\s*\{(?P<name>\w+\*?)\}")


def split(text: str, by: By | re.Pattern[str] = "paragraph") -> tuple[Step, ...]:
    r"""The steps of a text; none of an empty one.

    Args:
        text: a solution, whole or in part.
        by: "paragraph" cuts at blank lines (as DVTS and most process verifiers do), "line" at line ends, "numbered"
            before "Step 2:", "2." and their like in other languages (see `answers/markers.txt`); a compiled pattern
            cuts at its matches. The first three never cut a block of code, a displayed formula, or an environment of
            LaTeX.

    Raises:
        ConfigurationError: an unknown `by`, or a pattern that matches the empty text.

    >>> [step.text for step in split("First add.\n\nThen halve.")]
    ['First add.', 'Then halve.']
    """
    if isinstance(by, re.Pattern):
        if by.match(""):
            raise ConfigurationError(f"steps: by={by.pattern!r} matches the empty text; make it match a separator")
        places = [match.span() for match in by.finditer(text)]
    elif by in get_args(By):
        places = _outside(text, [m.span() for m in _separator(by).finditer(text)])
    else:
        raise ConfigurationError(f"steps: by={by!r} is not known; use 'paragraph', 'line', 'numbered' or a pattern")
    parts, start = list[str](), 0
    for a, b in places:
        parts.append(text[start:a])
        start = b
    return tuple(Step(part.strip("\r\n")) for part in [*parts, text[start:]] if part.strip())


def join(steps: Sequence[Step], separator: str = "\n\n") -> str:
    """The steps as one text."""
    return separator.join(step.text for step in steps)


def steps_of(candidate: Candidate, by: By | re.Pattern[str] = "paragraph") -> tuple[Step, ...]:
    """The candidate's own steps where it was searched in steps, else those of its text."""
    return candidate.steps or split(candidate.text, by)


@cache
def _separator(by: str) -> re.Pattern[str]:
    if by == "paragraph":
        return re.compile(_BLANK)
    if by == "line":
        return re.compile(r"(?:\r?\n)+")
    # "Step 3:", "3.", "3)", "## Step 3", "**Step 3**", "Schritt 3", "第三步", "3、": the number begins a step, and
    # belongs to it.
    word = marker_pattern("step")
    number = rf"\d{{1,3}}(?:[.)）．][ \t]|、|[.)-]?[ \t]?(?:{word}))"
    counted = r"(?:\d{1,3}(?!\d)|[一二三四五六七八九十]{1,3}|[^\W\d_]{2,12}[ \t]?:)"
    named = rf"(?:{word})[ \t]*(?:n[.°]?[ \t]*|\#)?{counted}"
    return re.compile(
        rf"^(?=[ \t]*(?:\#{{1,6}}[ \t]*)?(?:\*\*)?(?:{named}|{number}|第[一二三四五六七八九十\d]{{1,3}}步))",
        re.M | re.I,
    )


def _outside(text: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the places outside of blocks of code and formulas."""
    spans = sorted([*_fences(text), *_formulas(text)])
    kept, at, end = [], 0, 0
    for place in places:
        while at < len(spans) and spans[at][0] <= place[0]:
            end = max(end, spans[at][1])
            at += 1
        if place[0] >= end:
            kept.append(place)
    return kept


def _fences(text: str) -> list[tuple[int, int]]:
    """Where code blocks are; one that is never closed runs to the end."""
    if "```" not in text and "~~~" not in text:
        return []
    spans, opened = list[tuple[int, int]](), None
    for match in _FENCE.finditer(text):
        mark = match["mark"]
        if opened is None:
            opened = (match.start(), mark)
        elif mark[0] == opened[1][0] and len(mark) >= len(opened[1]):
            spans.append((opened[0], match.end()))
            opened = None
    return [*spans, (opened[0], len(text))] if opened else spans


def _formulas(text: str) -> list[tuple[int, int]]:
    """Where displayed formulas and environments are; one that is never closed does not count."""
    if "$$" not in text and "\\" not in text:
        return []
    spans, opened = list[tuple[int, int]](), dict[str, int]()
    for match in _MATHS.finditer(text):
        if match[0] == "$$":
            key, opens = "$$", "$$" not in opened
        elif match["what"]:
            key, opens = match["name"], match["what"] == "begin"
        else:
            key, opens = "[", match[0] == "\\["
        if opens:
            opened.setdefault(key, match.start())
        elif key in opened:
            spans.append((opened.pop(key), match.end()))
    return spans
