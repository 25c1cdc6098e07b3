r"""The form of an answer in which equal answers compare equal, and different ones do not. Pure.

It merges what is the same by writing only: `\frac{1}{2}` and `1/2`, `x=5` and `x = 5`, `{1,2}` and `{2,1}`, `(B)` and
`**B**`. What needs reckoning (`x+1` and `1+x`) or a judgement (`5 cm` and `5`) has two keys.
"""

from __future__ import annotations

import json
import re
from functools import cache

from tts_plugins._internal.json_bytes import refuse_constant
from tts_plugins.answers._fold import fold
from tts_plugins.answers._json_text import without_reasons
from tts_plugins.answers._latex import TooDeep, linear
from tts_plugins.answers._markers import languages_of, unspaced
from tts_plugins.answers._numbers import Style, number
from tts_plugins.answers._units import JOINED, MONEY_SIGNS, clock, date, money_in_front, unit

_LONG = 1000  # longer answers are compared as they stand: there is no formula in them worth the time
_ROUNDS = 12
_FORMULA = re.compile(r"[\\^_{}√×·÷≤≥≠→⇒∗]|\d\s*\*|\*\s*\d|sqrt")
_PAIRS = (("**", "**"), ("__", "__"), ('"', '"'), ("'", "'"), ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
_LETTER = re.compile(r"\(([A-Za-e])\)|\[([A-Z])\]|([A-Z])[.)]|<([A-Z])>|\(?([^\W\d_A-Za-zµμπ])\)")
_DIGIT = re.compile(r"[0-9]")
_WORD = re.compile(r"[^\W\d_]{3,}")
_SHORT_WORDS = {
    "yes",
    "no",
    "ok",
    "of",
    "in",
    "on",
    "at",
    "to",
    "is",
    "it",
    "he",
    "we",
    "or",
    "and",
    "the",
    "not",
    "for",
}
_NAMES = re.compile(
    r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|det|gcd|lcm|min|max|mod|lim|sup|inf|arg|deg|dim|ker)\b|"
    r"\\[a-zA-Z]+"
)
_NUMBER = r"[-+]?(?:\d[\d,.' _]*\d|\d|\.\d+)(?:[eE][-+]?\d+|\s*[*]\s*10\s*\^\s*\(?-?\d+\)?)?(?:\s*/\s*\d+)?"
_QUANTITY = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>[^\W\d_]\S*(?:[ */^]+\S+){{0,3}}|[°%€£¥₹¢₽₩][^\W\d_]?)")
_UNIT = re.compile(r"[^\W\d_°%€£¥₹¢₽₩]+\.?(?:(?:\s*[*/^]\s*|\s+)(?:-?\d+|[^\W\d_°.]+))*|[°%€£¥₹¢₽₩][CFK]?|US\$")
_ARTICLE = re.compile(r"(?:the|an|a)\s+(?!(?:and|or|plus|minus)\b)(?=\S)", re.IGNORECASE)
_VERB = re.compile(r"\b(?:is|are|was|were|will|has|have|does|do|can)\b", re.IGNORECASE)
_OPERATORS = re.compile(r"\s*(<=|>=|!=|->|=>|[-+*/^=<>|,;:(){}\[\]∪∩∈±!])\s*")
_LOOSE = re.compile(r"(?<=[^\W\d_])\s+(?=\d)|(?<=\d)\s+(?=[^\W\d_])")
_STAR = re.compile(r"(?<=[\w)])\*(?=[^\W\d_]|[√(\\])|(?<=[^\W\d_]|\))\*(?=\d)")
_FOLLOWING = re.compile(r"[.,;:]+\Z")


def normalise(answer: str, style: Style | None = None) -> str:
    """The one form of an answer; idempotent."""
    value = fold(answer).strip()
    if len(value) > _LONG:
        canonical = canonical_json(value)
        return canonical if canonical is not None else _plain(value).casefold()
    seen: list[str] = []
    while value not in seen and len(seen) < _ROUNDS:
        seen.append(value)
        value = _once(value, style)
        style = None
    return value if value == seen[-1] or value not in seen else min(seen[seen.index(value) :])


def canonical_json(text: str) -> str | None:
    """JSON in one form, without reasons; None for what is not an object or array."""
    text = text.strip()
    if text[:1] + text[-1:] not in ("{}", "[]"):
        return None
    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=_decimal)
    except (ValueError, RecursionError):
        return None
    try:
        made = json.dumps(without_reasons(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return None
    return made.replace('"\\u0000', "").replace('\\u0000"', "")


def _decimal(text: str) -> str:
    """A number in its one form and without rounding, between marks that are taken off when it is written out."""
    if abs(float(text)) == float("inf"):
        raise ValueError(f"{text} is out of range")
    return f"\x00{number(text) or text}\x00"


def _once(value: str, style: Style | None) -> str:
    value = _plain(value)
    if not value:
        return ""
    if (found := canonical_json(value)) is not None:
        return found
    value = _undressed(value)
    if (made := _number_or_quantity(value, style)) is not None:
        return made
    if value.startswith("{") and "\\" not in value and "," in value and _matching(value) == len(value) - 1:
        value = f"\\{value[:-1]}\\}}"  # a set that was typed by hand: in LaTeX, braces alone are not seen
    if _FORMULA.search(value):
        try:
            value = _plain(linear(value))
        except TooDeep:
            return value
    value = _undressed(value)
    if letter := _LETTER.fullmatch(value):
        found_letter = next(group for group in letter.groups() if group)
        return found_letter.upper()
    made = _number_or_quantity(value, style)
    if made is not None:
        return made
    if value.startswith("≈"):
        return value[1:].strip()
    return _text(value) if _is_text(value) else _formula(value)


def _matching(text: str) -> int:
    """Where the brace closes that opens the text; -1 where it never does."""
    depth = 0
    for place, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return place
    return -1


def _plain(value: str) -> str:
    return " ".join(value.split())


def _undressed(value: str) -> str:
    """Return the answer without what surrounds it: bold type, quotes, a dollar sign, the sentence's end."""
    before = None
    while value != before:
        before = value
        for opening, closing in _PAIRS:
            inner = value[len(opening) : -len(closing)]
            within = len(value) > len(opening + closing) and opening not in inner and closing not in inner
            if within and value.startswith(opening) and value.endswith(closing):
                value = inner.strip()
        if value.startswith("`") and number(value.strip("`")) is not None:
            value = value.strip("`")  # a name in backticks is code, and stays so
        if value.startswith("$") and "$" not in value[1:]:
            value = value[1:].strip()
        if value.startswith(("\\$", "-$", "-\\$")):
            value = value.replace("\\", "", 1).replace("$", "", 1).strip()
        value = _ended(value)
    return value


def _ended(value: str) -> str:
    """Without the punctuation that ends a sentence; dots of `0.333...` stay, and so do the marks of `5!` and `yes?`."""
    if value.endswith("!") and len(re.findall(r"[^\W\d_]{2,}(?=!+\Z)", value)) and not _NAMES.search(value):
        value = value.rstrip("!").rstrip()
    if value.endswith("...") or not _FOLLOWING.search(value):
        return value
    return _FOLLOWING.sub("", value).rstrip()


def _number_or_quantity(value: str, style: Style | None) -> str | None:
    if value.isascii() and not _DIGIT.search(value):
        return None
    percent = value.startswith("百分之")
    if (found := number(value[3:] if percent else value, style)) is not None:
        return f"{found}%" if percent else found
    if (moment := date(value) or clock(value)) is not None:
        return moment
    if (sum_ := money_in_front(value)) is not None:
        amount = number(sum_[0], style or "point") or number(sum_[0], "comma")
        return None if amount is None else f"{sum_[1]}{amount}"
    match = _QUANTITY.fullmatch(value)
    if match is None or not _UNIT.fullmatch(match["unit"]) or (_NAMES.match(match["unit"]) and match["unit"] != "min"):
        return None
    amount = number(match["number"], style or ("point" if match["unit"].casefold().startswith("dollar") else None))
    if amount is None:
        return None
    named = match["unit"]
    joined = not value[match.end("number") : match.start("unit")] and len(named) < 3 and named[0].isalpha()
    joined = joined and not unspaced(named)
    if joined and not style and named not in JOINED:
        return None  # 2x is a product
    if re.match(r"[α-ω](?<![μω])|[A-Za-z](?=[ *^/]|\Z)(?<![mgshLNJWVACKF])", named):
        return None
    short = unit(named)
    if short in MONEY_SIGNS:
        return f"{short}{amount}"
    return f"{amount}{short}" if short in ("", "°", "%", "°C", "°F") else f"{amount} {short}"


def _is_text(value: str) -> bool:
    """Whether it is words rather than a formula."""
    rest = _NAMES.sub(" ", value)
    if _WORD.search(rest):
        return True
    words = re.findall(r"[^\W\d_]+", rest)
    return bool(words) and all(w.casefold() in _short_words() for w in words) and not re.search(r"[=<>^\\]", value)


@cache
def _short_words() -> frozenset[str]:
    return frozenset((*_SHORT_WORDS, *languages_of("yesno")))


def _text(value: str) -> str:
    value = re.sub(r"(?<=[^\W\d_])-(?=[^\W\d_])", " ", value)
    if _ARTICLE.match(value) and not _VERB.search(value) and len(value.split()) <= 6:
        value = _ARTICLE.sub("", value, count=1)
    return _plain(re.sub(r"\s*,\s*", ", ", value)).casefold()


def _formula(value: str) -> str:
    value = re.sub(r"(?<=\d) (?=\d)", "\x00", value)  # 2 1/3 is no 21/3
    value = re.sub(r"(?<=\d), +(?=\d{3}(?!\d))", ",\x01", value)  # 1, 200 is no 1,200
    value = _LOOSE.sub("", _OPERATORS.sub(r"\1", value))
    value = _STAR.sub("", value).replace("\x00", " ").replace("\x01", " ")
    if value.startswith("\\{") and value.endswith("\\}"):
        value = _sorted_set(value)
    value = _items(value)
    return _sides(value)


def _sorted_set(value: str) -> str:
    inner = value[2:-2]
    parts = _split(inner, ",")
    if len(parts) < 2 or "..." in inner or "|" in inner or "\\{" in inner or ":" in inner:
        return value
    return "\\{" + ",".join(sorted(dict.fromkeys(number(p) or p for p in parts))) + "\\}"


def _items(value: str) -> str:
    """The numbers of a list, a tuple or an interval, each in its form; never two of them as one number."""
    opened, closed = value[:1], value[-1:]
    if opened in "([" and closed in ")]" and len(value) > 2:
        parts = _split(value[1:-1], ",")
        if len(parts) > 1 and all(parts):
            return opened + ",".join(number(p) or p for p in parts) + closed
        if opened + closed == "()" and number(value[1:-1]) is not None:
            return number(value[1:-1]) or value
    return value


def _sides(value: str) -> str:
    """The two sides of an equation in one order."""
    sides = _split(value, "=")
    if len(sides) != 2 or not all(sides) or re.search(r"[<>!=]=|[<>]|=>", value) or "," in value:
        return value
    left, right = (number(side) or side for side in sides)
    if re.fullmatch(r"[^\W\d_]'*(?:_\w|\([^()]*\))?", left):
        return f"{left}={right}"
    if re.fullmatch(r"[^\W\d_]'*(?:_\w|\([^()]*\))?", right):
        return f"{right}={left}"
    return "=".join(sorted((left, right)))


def _split(text: str, at: str) -> list[str]:
    """Return the parts between separators outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += 1 if char in "([{" else -1 if char in ")]}" else 0
        if char == at and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]
