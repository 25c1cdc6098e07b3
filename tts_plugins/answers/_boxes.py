r"""Answers in `\boxed{…}`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# "oxed": a JSON string or a template took "\b" for a control character.
_BRACE = re.compile(r"\\(?:f?box(?:ed)?|framebox)\s*+\{|oxed\s*+\{|[{}]")
_SHORT = re.compile(r"\\boxed\s*+(\d|[A-Za-z](?![A-Za-z]))")
_PLACEHOLDER = re.compile(
    r"[\s._?]*|\W*(?:(?:your|the|final|answer|result|letter|choice|option|here|number|value|solution|\.{3}|_+|x{3,})\W*)+",
    re.I,
)
_BETWEEN = re.compile(
    r"[\s$,;.\\()\[\]]*(?:(?:[^\W\d_](?:_\w)?\s*=|and|or|und|oder|et|ou|y|o|e|и|или|和|或|及|と)[\s$\\()\[\]]*){0,2}"
)
_NOT = re.compile(r"(?:\bnot|\bn't|≠|\bnicht|\bpas|\bno es|\bне|不是)[\s$\\(*:]{0,6}\Z", re.I)
_MOST = 12


@dataclass(frozen=True)
class Box:
    """The place of a box, and of what is in it."""

    start: int
    end: int
    inner: tuple[int, int]


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces balance."""
    last = max((box.inner for box in boxes(text)), default=None)
    return None if last is None else text[last[0] : last[1]]


def boxes(text: str) -> list[Box]:
    """All boxes whose braces balance, in no order; those within others too."""
    if "ox" not in text:
        return []
    found, opened = list[Box](), list[tuple[int, int, bool]]()
    for match in _BRACE.finditer(text):
        if match[0] != "}":
            opened.append((match.start(), match.end(), len(match[0]) > 1))
        elif opened:
            start, inner, is_box = opened.pop()
            if is_box and not (text[start] == "o" and text[max(0, start - 1) : start].isalpha()):
                found.append(Box(start, match.end(), (inner, match.start())))
    if not found:
        found = [Box(m.start(), m.end(), m.span(1)) for m in _SHORT.finditer(text)]
    return found


def last_answer(text: str) -> tuple[int, str] | None:
    r"""Where the last filled box stands, and what is in it; of several boxes in one list, all of them.

    A box that is empty, holds a word such as "answer", or is said not to be it, does not count.
    """
    found = sorted((b for b in boxes(text) if _counts(text, b)), key=lambda b: b.start)
    outer = [
        b
        for i, b in enumerate(found)
        if not any(o.start < b.start and b.end <= o.end for o in found[max(0, i - 4) : i])
    ]
    if not outer:
        return None
    listed = [outer[-1]]
    for before in reversed(outer[:-1][-_MOST:]):
        between = text[before.end : listed[0].start]
        if len(between) > 24 or not _BETWEEN.fullmatch(between) or not re.search(r"[^\W\d_]|[,;]", between):
            break
        listed.insert(0, before)
    contents = list(dict.fromkeys(text[b.inner[0] : b.inner[1]].strip() for b in listed))
    return listed[0].start, ", ".join(contents) if len(contents) < len(listed) or len(listed) > 1 else contents[0]


def _counts(text: str, box: Box) -> bool:
    inner = text[box.inner[0] : box.inner[1]]
    if not inner.strip() or _PLACEHOLDER.fullmatch(inner[:80]):
        return False
    return not _NOT.search(text[max(0, box.start - 16) : box.start])
