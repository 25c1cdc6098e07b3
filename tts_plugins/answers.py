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

AnswerKey = Callable[[str], str | None]

_MARKER = re.compile(r"(?:####|\b(?:final\s+)?answer\s*(?:is|:|=)\s*:?)[ \t]*\n?[ \t]*(?P<value>[^\n]+)", re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*\n(?P<body>.*?)```", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:e[-+]?\d{1,3})?", re.IGNORECASE)
_SHORT = 64


def extract(text: str) -> str | None:
    r"""The normalised answer in `text`; None where there is none to be read.

    >>> extract(r"so we get \boxed{\frac{1}{2}}."), extract("The answer is 1,200.")
    ('1/2', '1200')
    """
    found = _json(text) or boxed(text) or _marked(text) or _short(text)
    return None if found is None else normalise(found) or None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces balance."""
    for match in reversed(list(re.finditer(r"\\boxed\s*\{", text))):
        depth = 1
        for i in range(match.end(), len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[match.end() : i]
    return None


def normalise(answer: str) -> str:
    """A form in which answers that mean the same mostly compare equal: numbers, fractions, case, punctuation.

    JSON stays as it is. Idempotent.
    """
    value = answer.strip()
    if value[:1] in "[{" and value[-1:] in "]}":
        return value
    value = value.strip("$*`_ \t\n").rstrip(".,;:!?").strip("$*`_ \t\"'")
    value = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", value)
    value = re.sub(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}", r"\1/\2", value)
    value = re.sub(r"\\(?:left|right|,|;|!|\s)|\^\\circ|\\%|\\\$", "", value)
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
            try:
                value = json.loads(body)
            except ValueError:
                continue
            return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return None


def _marked(text: str) -> str | None:
    found = None
    for match in _MARKER.finditer(text):
        found = match["value"]
    # «The answer is 12. That is because …»: the value ends with its sentence.
    return None if found is None else re.split(r"(?<=[^\s.])\.\s", found + " ", maxsplit=1)[0]


def _short(text: str) -> str | None:
    value = text.strip()
    return value if value and "\n" not in value and len(value) <= _SHORT and len(value.split()) <= 4 else None


def _numeric(value: str) -> str | None:
    plain = value.removeprefix("$").strip(string.whitespace)
    if plain and _NUMBER.fullmatch(plain):
        plain = plain.replace(",", "")
        try:
            number = Fraction(plain)
        except ValueError:
            return None
        return _shortest(number) if abs(number) < 10**15 else plain
    parts = plain.split("/")
    if len(parts) == 2 and all(re.fullmatch(r"[-+]?\d{1,15}", p.strip()) for p in parts) and int(parts[1]):
        number = Fraction(int(parts[0]), int(parts[1]))
        return f"{number.numerator}/{number.denominator}" if number.denominator != 1 else str(number.numerator)
    return None


def _shortest(number: Fraction) -> str:
    if number.denominator == 1:
        return str(number.numerator)
    return repr(float(number))
