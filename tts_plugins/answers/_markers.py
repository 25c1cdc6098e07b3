"""The words that introduce an answer, by language, from `markers.txt`. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path

# Scripts that write without blanks between words: a word is found wherever its letters are.
_UNSPACED = re.compile("[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Those that write small words at the front of the next one.
_JOINED = re.compile("[\u0590-\u05ff\u0600-\u06ff\u0750-\u077f]")

# The letters that choices have, in the scripts in which tests letter them.
CHOICES = "A-JА-ИΑ-Θא-חأابجدهकखगघঙকখগঘกขคงจアイウエオ가나다라마甲乙丙丁"

Words = Mapping[str, Mapping[str, tuple[str, ...]]]  # by kind, then by language


def folded(text: str) -> str:
    """Lower case without a change of length, so that places stay what they are."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@cache
def words() -> Words:
    """All words of `markers.txt`."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for line in Path(__file__).with_name("markers.txt").read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            kind, language, *rest = line.split(None, 2)
            listed = tuple(
                folded(unicodedata.normalize("NFKC", w.strip())) for part in rest for w in part.split(";") if w.strip()
            )
            before = found.setdefault(kind, {})
            before[language] = (*before.get(language, ()), *listed)
    return found


@cache
def languages_of(kind: str) -> Mapping[str, tuple[str, ...]]:
    """The languages of each word of a kind."""
    out: dict[str, list[str]] = {}
    for language, listed in words().get(kind, {}).items():
        for word in dict.fromkeys(listed):
            out.setdefault(word, []).append(language)
    return {word: tuple(languages) for word, languages in out.items()}


@cache
def finder(kind: str, plain: bool = False) -> re.Pattern[str]:
    """Finds the words of a kind in a lower-case text, which may be `plain` ASCII; for borders, see `whole`."""
    return re.compile(trie(word for word in languages_of(kind) if word.isascii() or not plain))


@lru_cache(maxsize=16)
def mentions_any(low: str) -> bool:
    """Whether a lower-case text may have any word that states an answer: one look at it, where most have none."""
    return _of_statements(low.isascii()).search(low) is not None


STATING = ("answer", "result", "choice", "after")
"""The kinds of words that state an answer."""


@cache
def _of_statements(plain: bool) -> re.Pattern[str]:
    words = (word for kind in STATING for word in languages_of(kind))
    return re.compile(trie(word for word in words if word.isascii() or not plain))


def whole(text: str, start: int, end: int) -> bool:
    """Whether a word found there stands alone, where its script parts words."""
    if _UNSPACED.match(text, start):
        return True
    if start and _is_letter(text[start - 1]) and not _JOINED.match(text, start):
        return bool(_UNSPACED.match(text, start - 1))
    return end >= len(text) or not _is_letter(text[end]) or bool(_UNSPACED.match(text, end))


def unspaced(word: str) -> bool:
    """Whether its script writes without blanks between words."""
    return bool(_UNSPACED.search(word))


def alternatives(kind: str, languages: Iterable[str] | None = None) -> str:
    """A pattern for the words of a kind in some languages, or in all; it matches nothing where there are none."""
    known = words().get(kind, {})
    listed = {w for code in (known if languages is None else languages) for w in known.get(code, ())}
    return _bordered(listed) if listed else r"(?!)"


@cache
def decimal_comma(languages: tuple[str, ...]) -> bool | None:
    """Whether these languages write a comma where English has a point; None where they differ."""
    found = {language in words().get("comma", {}) for language in languages}
    return found.pop() if len(found) == 1 else None


def _bordered(listed: Iterable[str]) -> str:
    plain = [w for w in listed if unspaced(w) or not _is_letter(w[-1])]
    spaced = [w for w in listed if w not in plain]
    parts = [trie(spaced) + r"(?!\w)"] if spaced else []
    return f"(?:{'|'.join([*parts, *([trie(plain)] if plain else [])])})"


def _is_letter(char: str) -> bool:
    return char == "_" or unicodedata.category(char)[0] in "LM" or char.isdecimal()


def trie(listed: Iterable[str]) -> str:
    """A pattern for any of these words, the longest first, in which beginnings are shared: one look a character."""
    root: dict[str, dict[str, object]] = {}
    for word in listed:
        node: dict[str, object] = root  # type: ignore[assignment]
        for char in word:
            node = node.setdefault(char, {})  # type: ignore[assignment]
        node[""] = {}
    return _pattern(root)  # type: ignore[arg-type]


def _pattern(node: dict[str, object]) -> str:
    parts = []
    for char, rest in sorted(node.items()):
        if char:
            own = r"[ \t]{1,3}" if char == " " else re.escape(char)
            parts.append(own + _pattern(rest))  # type: ignore[arg-type]
    if not parts:
        return ""
    body = parts[0] if len(parts) == 1 and "" not in node else f"(?:{'|'.join(parts)})"
    return body + ("?" if "" in node else "")
