"""Sentences and headings that state an answer, in any language. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tts_plugins.answers._markers import (
    STATING,
    alternatives,
    finder,
    folded,
    languages_of,
    mentions_any,
    unspaced,
    whole,
    words,
)
from tts_plugins.answers._value import choice_of, value_at

_DECOR = r"[*_\"'`)\]}:]{0,6}"
_GAP = r"(?:,?[ \t]{1,3}[^\s.:;?!,=|]{1,24})"
_NOTE = r"(?:[ \t]{1,2}\([^()\n]{1,40}\))?"
_CLOSE = r"[^\s\d.,:;?!()=|]"
_NO_LINK = re.compile(
    r"\b(?:depends?|choices|options|which|when|because|and|but|so|if|of course|key|sheet|above|below)\b"
)
_CLAUSE = re.compile(r"[.!?;:\n,]")
_LINE_START = re.compile(r"[\s>#*_|\-•\d.)(]*(?:[^\W\d_]+[ \t]+){0,3}\Z")
_LABEL_LINE = re.compile(r"[*_\"'`)\]:]{0,6}[ \t]*(?=\n|\Z)")
_DIRECT = re.compile(r"[\]*_]{0,3}[ \t]{0,3}[*_(]{0,3}(?=[-+$\\(]{0,3}\d|[A-J](?!\w))")
# "The answer is 12:30", "is B: 42": the colon is part of the answer.
_VALUE_AND_COLON = re.compile(r"[ \t*_$(]{0,6}(?:[-+]?\d[\d.,]*|[A-J]\)?)[*_]{0,3}:[ \t]?(?=\S)")
_DASH = re.compile(r"[*_]{0,3}[ \t]{1,3}-[ \t]{1,3}(?=\S)")
_NEGATION = re.compile(r"(?:not|n't|never|nicht|pas|no es|не|ليس|नहीं)\b|不")


@dataclass(frozen=True)
class Statement:
    """An answer that was stated.

    Attributes:
        at: where its marker begins.
        raw: the answer.
        languages: those that its marker may be of; empty where that is not known.
        doubtful: it is a remark about an answer, a supposition or a question.
    """

    at: int
    raw: str
    languages: tuple[str, ...] = ()
    doubtful: bool = False


_MOST = 100  # markers that are looked at, from the end: of more, no text has any honest use


def mentions(low: str, kind: str) -> Iterator[tuple[re.Match[str], tuple[str, ...]]]:
    """The words of a kind in a lower-case text with their languages, the last one first."""
    if kind in STATING and not mentions_any(low):
        return
    known, matches = languages_of(kind), deque(finder(kind, low.isascii()).finditer(low), maxlen=4 * _MOST)
    left = _MOST
    while matches and left:
        match = matches.pop()
        if whole(low, match.start(), match.end()):
            left -= 1
            yield match, known[match[0]]


def stated(text: str, low: str, kind: str) -> Iterator[Statement]:
    """What follows each noun of a kind, where it is joined to it; the last one first."""
    for match, languages in mentions(low, kind):
        found = _joined(text, low, match.start(), match.end(), languages, unspaced(match[0]))
        if found is None:
            continue
        at, form = found
        raw = value_at(text, at, languages)
        if raw:
            yield Statement(match.start(), raw, languages, _doubtful(low, match.start(), at, raw, languages, form))


def chosen(text: str, low: str) -> Iterator[Statement]:
    """The letter behind words that choose: "I choose B"."""
    for match, languages in mentions(low, "choice"):
        rest = text[match.end() : match.end() + 80].lstrip(" :-")
        if (letter := choice_of(rest.partition("\n")[0], languages)) is not None:
            yield Statement(match.start(), letter, languages)


def inverted(text: str, low: str) -> Iterator[Statement]:
    """The answer that stands before "is the answer"."""
    for match, languages in mentions(low, "after"):
        start = max(
            low.rfind(mark, max(0, match.start() - 60), match.start()) for mark in ("\n", ". ", ", ", ": ", "? ", "; ")
        )
        before = text[max(start + 1, match.start() - 60) : match.start()].strip(" \t*_\"'`.,:")
        before = re.sub(r"^(?:so|thus|hence|therefore|and|option|choice|the|letter)\s+", "", before, flags=re.I)
        before = re.sub(r"^(?:option|choice|letter)\s+", "", before, flags=re.I)
        letter = choice_of(before, languages)
        if letter is not None or re.fullmatch(
            r"[-+$€£]{0,2}\d[\d.,/]*(?:\s?[^\W\d_%]+|%)?|\$[^$]+\$|\\\(.+\\\)", before
        ):
            yield Statement(match.start(), letter or before, languages)


def _joined(
    text: str, low: str, start: int, end: int, languages: tuple[str, ...], close: bool
) -> tuple[int, str] | None:
    """Where the answer begins behind its noun, and how the two are joined."""
    english = "en" in languages
    link = _is(languages, close).match(low, end)
    if link and link["link"] and _negated(languages).search(low, end, link.start("link")):
        return None
    found = _colon(close).match(low, end)
    if found and not _NO_LINK.search(found[0]) and not (link and _VALUE_AND_COLON.match(text, link.end())):
        return found.end(), "colon"
    if (not english or low[end - 1] == "." or low[end : end + 1] == "]") and (found := _DIRECT.match(text, end)):
        return found.end(), "colon"
    if link and not _NO_LINK.search(link["gap"] or ""):
        return link.end(), "is"
    line_start = low.rfind("\n", 0, start) + 1
    heads = start - line_start <= 60 and bool(_LINE_START.match(low[line_start:start]))
    if (found := _DASH.match(low, end)) and (heads or not english):
        return found.end(), "colon"
    if text.startswith(("\\[", "$$"), end + 1):
        return end, "colon"
    if heads and (found := _LABEL_LINE.match(low, end)):
        return found.end(), "heading"
    return None


@cache
def _colon(close: bool) -> re.Pattern[str]:
    gap = rf"{_CLOSE}{{0,8}}?" if close else rf"{_GAP}{{0,4}}?"
    return re.compile(
        rf"[*_\"'`)\]}}]{{0,6}}(?:=|{gap}{_NOTE}[*_\"'`)\]}}]{{0,6}}[ \t]{{0,40}}:|[ \t]{{1,3}}=)"
        r"[*_\"'`\])]{0,6}[ \t]{0,3}[:=]?"
    )


@cache
def _is(languages: tuple[str, ...], close: bool) -> re.Pattern[str]:
    link = f"(?P<link>{alternatives('is', languages)})"
    near = [w for code in languages for w in words()["is"].get(code, ()) if unspaced(w)]
    if close or near:
        return re.compile(rf"{_DECOR}(?P<gap>{_CLOSE}{{0,12}}?)[ \t]{{0,3}}{link}(?:[ \t]?:)?")
    short = r"|'s\b" if "en" in languages else ""
    return re.compile(
        rf"[*_\"'`)\]]{{0,4}}(?:(?P<gap>{_GAP}{{0,6}}?,?)[ \t]{{1,3}}{link}(?:[*_]{{0,3}}[ \t]?[:=])?{short})"
    )


def _doubtful(low: str, start: int, at: int, raw: str, languages: tuple[str, ...], form: str) -> bool:
    if form != "is":
        return False
    value = folded(raw.strip("*_ "))
    remark = _remark(languages).match(value)
    if remark and not value[remark.end() :].lstrip().startswith(tuple("0123456789$\\(")):
        return True
    if _NEGATION.match(value) or raw.rstrip("*_ ").endswith("?"):
        return True
    before = low[max(0, start - 48) : start]
    clause = before[max((m.end() for m in _CLAUSE.finditer(before)), default=0) :]
    return bool(_if(languages).search(clause))


@cache
def _negated(languages: tuple[str, ...]) -> re.Pattern[str]:
    """The words right before "is" that deny an answer: "no es", "不是"."""
    close = any(unspaced(w) for code in languages for w in words()["not"].get(code, ()))
    return re.compile(("" if close else r"(?<!\w)") + alternatives("not", languages) + r"[ \t]{0,3}\Z")


@cache
def _remark(languages: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(
        rf"(?:indeed |also |clearly |therefore |thus |not |now |then |so )?{alternatives('remark', languages)}"
    )


@cache
def _if(languages: tuple[str, ...]) -> re.Pattern[str]:
    close = [w for code in languages for w in words().get("if", {}).get(code, ()) if unspaced(w)]
    return re.compile(("" if close else r"(?<!\w)") + alternatives("if", languages))
