r"""The answer inside a text, in a form in which equal answers compare equal.

`extract` finds, in this order: a JSON object or array (canonical JSON); the last `\boxed{…}`; what stands after
the last `####`, `Answer:` or «answer is»; a text that is one short line. A text without any of these has no
answer that can vote. Where that does not fit, give your own function: `solve(..., answer=function)`.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from fractions import Fraction
from typing import Self

AnswerKey = Callable[[str], str | None]


class Answer(str):
    """An answer's key, and `raw`, the answer as it was written."""

    raw: str

    def __new__(cls, key: str, raw: str | None = None) -> Self:
        made = super().__new__(cls, key)
        made.raw = key if raw is None else raw
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (str(self), self.raw)


# Possessive: long runs of blanks must not be tried in every division. «**Answer**: 4» and «Answer:\n\n4» are usual.
_MARKER = re.compile(r"(?:####|\banswer[*_]{0,3}\s*+(?P<how>is\b|:|=)[*_]{0,3}\s*+[:=]?+)\s*+(?=\S)", re.IGNORECASE)
# «The answer is indeed 1.51»: words of no weight before a number, and only there.
_FILLER = re.compile(
    r"(?:(?:indeed|simply|just|exactly|precisely|therefore|thus|hence|then|so|clearly|also|now|equal to)\b[\s,:]*+)+"
    r"(?=[-+−$\\(.*]*\d)",
    re.IGNORECASE,
)
# «… the answer is correct» says so of the answer before it.
_VERDICT = re.compile(r"(?:indeed |also )?(?:in)?(?:correct|right|wrong|valid|verified|consistent)\b", re.IGNORECASE)
_BRACE = re.compile(r"\\boxed\s*+\{|[{}]")
_FENCE = re.compile(r"```[\w-]*\n(?P<body>.*?)```", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.IGNORECASE)
_SHORT = 64
_BLANK = "$*`_\"' "
_LONG = 1000  # longer answers are compared as they stand: there is no formula in them worth the time


def extract(text: str) -> Answer | None:
    r"""The normalised answer in `text`; None where there is none to be read.

    >>> extract(r"so we get \boxed{\frac{1}{2}}."), extract("The answer is 1,200.")
    ('1/2', '1200')
    """
    found = _json(text) or boxed(text) or _marked(text) or _short(text)
    key = None if found is None else normalise(found)
    return Answer(key, found.strip()) if found and key else None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces balance."""
    if "\\boxed" not in text:
        return None
    last, opened = (-1, -1), list[tuple[int, bool]]()
    for match in _BRACE.finditer(text):
        if match[0] != "}":
            opened.append((match.end(), len(match[0]) > 1))
        elif opened:
            start, is_box = opened.pop()
            last = max(last, (start, match.start())) if is_box else last
    return None if last[0] < 0 else text[last[0] : last[1]]


def marked(text: str) -> bool:
    r"""Whether an answer stands in it with a marker: `\boxed{…}`, or what follows `####`, `Answer:` or «answer is».

    A text that is one short line is an answer to `extract`, but no sign that a solution ends with it.
    """
    return bool(boxed(text) or _marked(text))


def normalise(answer: str) -> str:
    """A form in which answers that mean the same mostly compare equal: numbers, fractions, case, punctuation.

    JSON becomes canonical JSON. Idempotent.
    """
    plain = answer.strip()
    if len(plain) < 15 and plain.isascii() and plain.isdecimal():
        return str(int(plain))  # most answers, without the detour through fractions
    value, before = _clean(answer), None
    while value != before and len(value) <= _LONG:
        value, before = _clean(value), value
    return value


def _clean(answer: str) -> str:
    value = answer.strip()
    if value[:1] in ("[", "{") and value[-1:] in ("]", "}"):
        return _canonical(value) or value
    value = " ".join(value.replace("\N{MINUS SIGN}", "-").split()).lstrip(_BLANK).rstrip(_BLANK + ".,;:!?")
    if ("\\" in value or "{,}" in value) and len(value) <= _LONG:
        value = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", value)
        value = re.sub(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}", r"\1/\2", value)
        value = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r"\1/\2", value)
        value = re.sub(r"\\(?:left|right|,|;|!|\s)|\\[()\[\]]|\^\\circ|\\%|\\\$", "", value.replace("{,}", ","))
    value = " ".join(value.split()).casefold()
    return _numeric(value) or value


def equivalent(a: str, b: str) -> bool:
    """Whether two answers mean the same, beyond `normalise` where it says «equal».

    Uses math-verify where it is installed (the extra `math`), in the calling thread; it needs the main thread,
    since it sets an alarm, and elsewhere only normalised forms are compared.
    """
    if normalise(a) == normalise(b):
        return True
    import threading

    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        from math_verify import parse, verify
    except ImportError:
        return False
    return bool(verify(parse(f"${a}$"), parse(f"${b}$")))


def _json(text: str) -> str | None:
    bodies = [m["body"] for m in _FENCE.finditer(text)][::-1] or [text]
    for body in bodies:
        body = body.strip()
        if body[:1] in ("{", "["):
            found = _canonical(body)
            if found is not None:
                return found
    return None


def _canonical(text: str) -> str | None:
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None


def _marked(text: str) -> str | None:
    at: int | None = None
    for match in _MARKER.finditer(text):
        remark = (match["how"] or "").lower() == "is" and _VERDICT.match(text, match.end())
        if at is None or not remark or _VERDICT.match(text, at):
            at = match.end()
    if at is None:
        return None
    found = text[at:].partition("\n")[0]
    if filler := _FILLER.match(found):
        found = found[filler.end() :]
    # «The answer is 12. That is because …»: the value ends with its sentence.
    return re.split(r"(?<=[^\s.])\.\s", found + " ", maxsplit=1)[0]


def _short(text: str) -> str | None:
    value = text.strip()
    if not value or "\n" in value or len(value) > _SHORT or "\\boxed" in value:  # an empty box is no answer
        return None
    return value if len(value.split()) <= 4 else None


def _numeric(value: str) -> str | None:
    plain = value.removeprefix("$").removesuffix("%").strip(string.whitespace)
    if plain and _NUMBER.fullmatch(plain):
        plain = plain.replace(",", "")
        try:
            number = Fraction(plain)
        except ValueError:
            return None
        return (_shortest(number) or plain) if abs(number) < 10**15 else plain
    parts = plain.split("/")
    if len(parts) == 2 and all(re.fullmatch(r"[-+]?\d{1,15}", p.strip()) for p in parts) and int(parts[1]):
        number = Fraction(int(parts[0]), int(parts[1]))
        return f"{number.numerator}/{number.denominator}" if number.denominator != 1 else str(number.numerator)
    return None


def _shortest(number: Fraction) -> str | None:
    """None where a float cannot tell it from zero."""
    value = float(number)
    if number.denominator == 1 or value.is_integer():
        return str(round(value)) if value or not number else None
    return repr(value)
