"""Numbers in all their dresses, as exact values in one form. Pure; digits are never rounded.

`1,234` is a thousand and more in English, a list in a formula, and one and a bit in German. What decides is the number
itself (`1,234.5`, `1,050`), or what `style` says; where neither does, it stays as it is: two votes for one answer do
less harm than one vote for two.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Literal

from tts_plugins.answers import _numerals

Style = Literal["point", "comma"]  # which of the two stands before the decimals

_SIGN = r"[-+]?"
_PLAIN = re.compile(rf"(?P<sign>{_SIGN})(?P<whole>\d*)(?:\.(?P<part>\d*))?(?:[eE](?P<exp>[-+]?\d{{1,6}}))?")
_COMMAS = re.compile(rf"({_SIGN})(\d{{1,3}})((?:,\d{{3}})+)(\.\d+)?")
_LAKH = re.compile(rf"({_SIGN})(\d{{1,2}})((?:,\d{{2}})+,\d{{3}})(\.\d+)?")
_POINTS = re.compile(rf"({_SIGN})(\d{{1,3}})((?:\.\d{{3}})+)(,\d+)?")
_OTHERS = re.compile(rf"({_SIGN})(\d{{1,3}})((?:([ '_])\d{{3}})(?:\4\d{{3}})*)([.,]\d+)?")
_COMMA_PART = re.compile(rf"({_SIGN})(\d+),(\d+)")
_POWER = re.compile(
    rf"({_SIGN}\d{{1,40}}(?:\.\d{{1,40}})?)\s*[*x]\s*10\s*\^\s*[({{]?\s*([-+]?\d{{1,6}})\s*[)}}]?", re.IGNORECASE
)
_TEN = re.compile(rf"({_SIGN})10\s*\^\s*[({{]?\s*([-+]?\d{{1,6}})\s*[)}}]?")
_FRACTION = re.compile(rf"({_SIGN})\s*\(?\s*(-?\d{{1,18}})\s*\)?\s*/\s*\(?\s*([-+]?\d{{1,18}})\s*\)?")
_MIXED = re.compile(rf"({_SIGN})\s*(\d{{1,12}})\s+(\d{{1,12}})\s*/\s*(\d{{1,12}})")
_REPEATING = re.compile(r"([-+]?)(\d{0,12})\.(\d{0,12})(?:\\overline\s*\{(\d{1,12})\}|\\dot\s*\{(\d)\}|\((\d{1,12})\))")
_PLACES = 19  # a fraction that ends within so many places is its decimal
_WIDE = 40  # places by which an exponent is written out


def number(text: str, style: Style | None = None) -> str | None:
    """Return the one form of a number; None for a text that is not a number, or could be more than one.

    >>> number("1,200.50"), number("3*10^8"), number("2 1/3"), number("1,234"), number("1,234", "point")
    ('1200.5', '300000000', '7/3', None, '1234')
    """
    text = text.strip()
    if not text.isascii() and (value := _numerals.value_of(text)) is not None:
        return written(value)
    if not text or not (text[0].isdigit() or text[0] in "+-.(") or not (text[-1].isdigit() or text[-1] in ".)}"):
        return None  # as most texts, at once
    grouped = _grouped(text, style)
    if grouped is not None:
        return _plain(grouped)
    return _plain(text) or _scientific(text) or _fraction(text) or _repeating(text)


def _plain(text: str) -> str | None:
    match = _PLAIN.fullmatch(text)
    if match is None or not (match["whole"] or match["part"]):
        return None
    sign, whole, part = match["sign"], match["whole"] or "", match["part"] or ""
    exponent = int(match["exp"] or 0)
    digits = (whole + part).lstrip("0")
    if not digits:
        return "0"
    minus = "-" if sign == "-" else ""
    places = len(part) - exponent  # the value is digits / 10 ** places
    stripped = digits.rstrip("0") if places > 0 else digits
    places -= len(digits) - len(stripped) if places > 0 else 0
    if places < 0 and -places <= _WIDE and len(stripped) - places <= 4 * _WIDE:
        stripped, places = stripped + "0" * -places, 0
    if places < 0 or places > max(_WIDE, len(part)):
        bare = digits.rstrip("0")
        return f"{minus}{bare}e{len(digits) - len(bare) - (len(part) - exponent)}"
    if places == 0:
        return minus + stripped
    if places < 0:  # trailing zeros beyond the point were dropped
        return minus + stripped + "0" * -places
    padded = stripped.rjust(places + 1, "0")
    made = f"{padded[:-places]}.{padded[-places:]}"
    return minus + (_artefact(made) or made)


def _artefact(text: str) -> str | None:
    """What a sum of binary fractions should have been: 0.30000000000000004 is 0.3; None for any other number."""
    if not 17 <= len(text) <= 24 or repr(float(text)) != text:
        return None
    rounded = f"{float(text):.14g}"
    return rounded if len(rounded) <= len(text) - 5 and "e" not in rounded else None


def _grouped(text: str, style: Style | None) -> str | None:
    """The number without its thousands separators and with a decimal point; None where it has no such dress."""
    if match := _COMMAS.fullmatch(text):
        sign, head, groups, part = match.groups()
        if head.startswith("0") and style != "comma":
            return None  # 0,500 is half, or two numbers
        if style != "comma" and (style == "point" or part or _thousands(head, groups.split(",")[1:])):
            return f"{sign}{head}{groups.replace(',', '')}{part or ''}"
        if style == "comma" and groups.count(",") == 1 and not part:
            return f"{sign}{head}.{groups[1:]}"
        return None
    if style == "point" and (match := _LAKH.fullmatch(text)):
        return f"{match[1]}{match[2]}{match[3].replace(',', '')}{match[4] or ''}"
    if match := _POINTS.fullmatch(text):
        sign, head, groups, part = match.groups()
        if part or groups.count(".") > 1 or style == "comma":
            return f"{sign}{head}{groups.replace('.', '')}{'.' + part[1:] if part else ''}"
        return None
    if match := _OTHERS.fullmatch(text):
        sign, head, groups, mark, part = match.groups()
        if mark == " " and style is None and not part and not _thousands(head, groups.split(" ")[1:], blank=True):
            return None
        return f"{sign}{head}{groups.replace(mark, '')}{'.' + part[1:] if part else ''}"
    if style == "comma" and (match := _COMMA_PART.fullmatch(text)):
        return f"{match[1]}{match[2]}.{match[3]}"
    return None


def _thousands(head: str, groups: list[str], *, blank: bool = False) -> bool:
    """Return whether groups of three digits cannot be a list: one begins with 0, or the number is round or long."""
    if head.startswith("0"):
        return False
    if any(group[0] == "0" for group in groups):
        return True
    return len(head) < 3 and (blank or len(groups) > 1 or groups[-1].endswith("00"))


def _scientific(text: str) -> str | None:
    if match := _POWER.fullmatch(text):
        return _plain(f"{match[1]}e{int(match[2])}")
    if match := _TEN.fullmatch(text):
        exponent = int(match[2])
        return _plain(f"{match[1]}1e{exponent}") if abs(exponent) <= _WIDE else None
    return None


def _fraction(text: str) -> str | None:
    if match := _MIXED.fullmatch(text):
        sign, whole, over, under = match.groups()
        if int(under) == 0:
            return None
        return written((-1 if sign == "-" else 1) * (int(whole) + Fraction(int(over), int(under))))
    if match := _FRACTION.fullmatch(text):
        sign, over, under = match.groups()
        if int(under) == 0:
            return None
        return written((-1 if sign == "-" else 1) * Fraction(int(over), int(under)))
    return None


def _repeating(text: str) -> str | None:
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    sign, whole, part = match[1], match[2] or "0", match[3]
    again = match[4] or match[5] or match[6]
    value = Fraction(int(whole + part or "0"), 10 ** len(part))
    value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(part))
    return written(-value if sign == "-" else value)


def written(value: Fraction) -> str:
    """A value in its one form: as a whole number or a decimal where it is one, else as a fraction in lowest terms."""
    places = next((p for p in range(_PLACES) if 10**p % value.denominator == 0), None)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    if places == 0:
        return str(value.numerator)
    digits = str(abs(value.numerator) * (10**places // value.denominator)).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def value_of(text: str) -> Fraction | None:
    """The value of a number in its one form; None for other texts, and where it has too many digits to reckon with."""
    if len(text) > 80:
        return None
    over, slash, under = text.partition("/")
    try:
        value = Fraction(over) / Fraction(under) if slash else Fraction(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if value.denominator < 10**60 and math.log10(abs(value) + 1) < 60 else None
