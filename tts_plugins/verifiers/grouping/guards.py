"""What must hold before math-verify is asked whether two answers are equal: it takes things for equal that are not.

It says yes to `5 cm` and `5 m`, `10` and `10%`, `f'` and `f`, `x` and `X`, `(1,2)` and `{1,2}`, `1,2,3` and `3,2,1`,
and to an equation and one of its sides. Pure.
"""

from __future__ import annotations

import re

from tts_plugins.answers import number_value

_COMMAND = re.compile(r"\\([a-zA-Z]+)")
# What an answer may be assigned to, at its beginning and that of each part of a list: a name, an angle, a ratio.
_ASSIGNED = re.compile(
    r"(?:\A|(?<=[,;])|(?<=\\quad))(?:\\[ ,;]|\s)*[^=+\-<>≤≥]{1,40}?(?<![\d.\s])\s*(?:=|\\in\b|∈)\s*(?!=)"
)
_UNIT = re.compile(r"(?<=[\d\s}])([^\W\d_°%]{1,12}(?:[/^][^\W_]+)*)\s*\Z")
_WORDS = {"and", "or", "if", "for", "all", "mod"}
_VARIABLE = re.compile(r"[^\W\d_]")
_NAMES = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "frac", "pi", "min", "max", "inf"}
_OPEN, _CLOSE = "([{⟨", ")]}⟩"
_RELATION = re.compile(r"<=|>=|!=|[<>=≤≥≠]|\\(?:leq?|geq?|neq?|lt|gt)(?![a-zA-Z])")


def plain(text: str) -> str:
    """An answer without its dollars, with commas for "and", and of a chain `x = 5 + 6 = 11` only what it ends in."""
    text = text.strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    text = re.sub(r"\s*\^\s*\{?\s*\\circ\s*\}?|\\degree\b|\s*\bdegrees?\b", "°", text)
    text = re.sub(r"\s*\\text\s*\{\s*(?:and|or)\s*\}\s*", ", ", text)
    sides = text.split("=")
    if len(sides) > 2 and "," not in text and re.fullmatch(r"\s*[^\W\d_]\s*", sides[0]):
        text = f"{sides[0].strip()}={sides[-1].strip()}"
    return text


def one_way(a: str, b: str) -> bool:
    """Whether math-verify has to say yes to both orders: a set and a chain of relations it compares in one only."""
    return "\\in" not in a + b


def decided(a: str, b: str) -> bool | None:
    """Whether two answers are equal, where that needs no formula to be understood; None where it does."""
    first, second = (number_value(text) for text in (a, b))
    if first is not None and second is not None:
        return first == second  # exactly: 0.333333 is not 1/3
    if not any(c.isdigit() or c in "\\=<>^_" for c in a + b) and (_word(a) or _word(b)):
        return False  # words, whose keys differ
    return None if may_be_equal(a, b) else False


def may_be_equal(a: str, b: str, *, strict: bool = True) -> bool:
    """Whether nothing that math-verify overlooks keeps two answers apart; `strict` looks at percent and brackets."""
    a, b = (text.replace("\\!", "") for text in (a, b))  # a narrow space, and no factorial
    first, second = (re.sub(r"\\?%|percent(?:age)?\b", "%", text) for text in (a, b))
    for mark in "°!?€£¥%" if strict else "!?€£¥":
        if first.count(mark) != second.count(mark):
            return False
    if a.count("'") != b.count("'") or (strict and not _brackets(a, b)):
        return False
    return _units(a, b) and _relations(a, b) and _variables(a, b)


def elements(a: str, b: str) -> list[tuple[str, str]] | None:
    """The pairs that must each be equal for two lists or tuples to be, since their order counts; None for others."""
    first, second = _parts(a), _parts(b)
    if first is None or second is None:
        return None
    return list(zip(first, second, strict=True)) if len(first) == len(second) else []


def _word(text: str) -> bool:
    return bool(re.fullmatch(r"[^\W\d_]{3,}(?:[\s-][^\W\d_]+)*", text.strip()))


def _unit(text: str) -> str:
    match = _UNIT.search(re.sub(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}", r" \1", text).replace("\\,", " "))
    return match[1] if match and re.search(r"\d\s*(?:\}\s*)?\Z", text[: match.start()] or " ") else ""


def _units(a: str, b: str) -> bool:
    first, second = _unit(a), _unit(b)
    return first == second or not first or not second


def _outer(text: str) -> str:
    """The brackets around all of it; `(` for a bare list."""
    plain = (
        re.sub(r"\\(?:left|right|bigl?|bigr?)(?![a-z])", "", _ASSIGNED.sub("", text))
        .replace("\\{", "⟨")
        .replace("\\}", "⟩")
    )
    plain = plain.strip().replace("\\lbrace", "⟨").replace("\\rbrace", "⟩")
    if plain[:1] in _OPEN and plain[-1:] in _CLOSE and _whole(plain):
        return plain[0].replace("{", "⟨") + plain[-1].replace("}", "⟩")
    return ""


def _whole(text: str) -> bool:
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth == 0:
            return place == len(text) - 1
    return False


def _brackets(a: str, b: str) -> bool:
    first, second = _outer(a), _outer(b)
    return not first or not second or first == second or "," not in a + b or "\\begin" in a + b


def _relations(a: str, b: str) -> bool:
    """An equation is not one of its sides; `x = 5` is, since its other side is a name. An interval may be written as a
    chain of relations."""
    left = [len(_RELATION.findall(_ASSIGNED.sub("", text))) for text in (a, b)]
    interval = any(_outer(text) for text in (a, b)) or "\\in" in a + b or "\\cup" in a + b
    return (left[0] == 0) == (left[1] == 0) or interval


def _variables(a: str, b: str) -> bool:
    first, second = _letters(a), _letters(b)
    return first == second or not first or not second or _letters(a, bare=True) == _letters(b, bare=True)


def _letters(text: str, *, bare: bool = False) -> set[str]:
    """The variables of a formula; `bare` leaves out a name that it is assigned to."""
    plain = re.sub(r"\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*\}", " ", _ASSIGNED.sub("", text) if bare else text)
    plain = _COMMAND.sub(" ", plain)
    plain = re.sub(r"[^\W\d_]{3,}", lambda m: " " if m[0].lower() in _NAMES | _WORDS else m[0], plain)
    if unit := _unit(text):
        plain = plain.rstrip().removesuffix(unit)
    return set(_VARIABLE.findall(plain)) - {"e", "i", "d"}


def _parts(text: str) -> list[str] | None:
    """The elements of a tuple or of a bare list."""
    outer = _outer(text)
    if outer not in ("", "()"):
        return None
    inner = re.sub(r"\\(?:left|right)(?![a-z])", "", text).strip()
    inner = inner[1:-1] if outer else inner
    parts, depth, start = list[str](), 0, 0
    for place, char in enumerate(inner):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char in ",;" and depth == 0:
            parts.append(inner[start:place].strip())
            start = place + 1
    parts.append(inner[start:].strip())
    simple = len(parts) > 1 and all(parts) and not any(_RELATION.search(p) or p[:1] in _OPEN for p in parts)
    return parts if simple else None
