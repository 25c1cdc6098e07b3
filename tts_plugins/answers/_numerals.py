"""Numbers in Chinese characters, as Chinese, Japanese and old Korean texts have them. Pure.

Only what has one value is read: 一百二 is short for 120 in speech and stays as it is, and so does 一二.
"""

from __future__ import annotations

import re
from fractions import Fraction

_WRITTEN = ("〇零○", "一壹壱弌", "二贰貳弐两兩", "三叁參参", "四肆", "五伍", "六陆陸", "七柒漆", "八捌", "九玖")
_DIGITS = {char: value for value, chars in enumerate(_WRITTEN) for char in chars}
_SMALL = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_LARGE = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12}
_ONE, _TENS = "".join(_DIGITS), "".join(_SMALL)
_ANY = f"{_ONE}{_TENS}{''.join(_LARGE)}"
_SIGN = re.compile(r"(?:[-负負]|マイナス)\s*")
_WHOLE = re.compile(rf"[{_ANY}]{{1,40}}")
_BY_PLACES = re.compile(rf"[{_ONE}]{{1,40}}")
_DECIMAL = re.compile(rf"(?P<whole>[{_ANY}]{{1,40}})[点點・](?P<part>[{_ONE}]{{1,40}})")
_RATIO = re.compile(rf"(?P<under>[{_ANY}]{{1,20}})分(?:之|の)(?P<over>[{_ANY}]{{1,20}})")
_MIXED = re.compile(r"(?:\d[\d,]*(?:\.\d+)?[十百千万萬亿億兆]{1,2})+(?:\d[\d,]*)?")
_PIECE = re.compile(r"(\d[\d,]*(?:\.\d+)?)([十百千万萬亿億兆]{0,2})")


def value_of(text: str) -> Fraction | None:
    """The value of a number that has Chinese characters in it; None for other texts, and where it is not certain.

    >>> str(value_of("一百二十")), str(value_of("三分之一")), str(value_of("3万5000")), value_of("一百二")
    ('120', '1/3', '35000', None)
    """
    sign = _SIGN.match(text)
    value = _positive(text[sign.end() :] if sign else text)
    return -value if sign and value is not None else value


def _positive(text: str) -> Fraction | None:
    if _WHOLE.fullmatch(text):
        return _whole(text)
    if match := _DECIMAL.fullmatch(text):
        whole = _whole(match["whole"])
        digits = "".join(str(_DIGITS[c]) for c in match["part"])
        return None if whole is None else whole + Fraction(int(digits), 10 ** len(digits))
    if text.startswith("百分之"):
        return None  # a percentage, which is another answer
    if match := _RATIO.fullmatch(text):
        over, under = _whole(match["over"]), _whole(match["under"])
        return over / under if over is not None and under else None
    return _mixed(text) if _MIXED.fullmatch(text) else None


def _whole(text: str) -> Fraction | None:
    if _BY_PLACES.fullmatch(text):  # 二〇二四; of two digits without a zero nobody knows whether they are one number
        if len(text) > 1 and not any(c in "〇零○" for c in text[1:]):
            return None
        return Fraction(int("".join(str(_DIGITS[c]) for c in text)))
    total, block, digit, least, largest = 0, 0, None, 10**4, 10**16
    skipped = False  # a zero that stands for places that are left out
    for char in text:
        if char in _DIGITS:
            if digit is not None:
                return None
            if _DIGITS[char] == 0:
                if skipped:
                    return None
                skipped = True
                continue
            digit = _DIGITS[char]
        elif char in _SMALL:
            unit = _SMALL[char]
            if unit >= least:
                return None
            block, digit, least, skipped = block + (1 if digit is None else digit) * unit, None, unit, False
        else:
            unit = _LARGE[char]
            block += digit or 0
            if unit >= largest or not block:
                return None
            total, block, digit, least, largest, skipped = total + block * unit, 0, None, 10**4, unit, False
    if digit is None:
        return None if skipped else Fraction(total + block)
    return Fraction(total + block + digit) if skipped or least == 10 else None  # 一百二, 三万五


def _mixed(text: str) -> Fraction | None:
    total, largest = Fraction(0), None
    for digits, units in _PIECE.findall(text):
        factor = 1
        for char in units:
            factor *= {**_SMALL, **_LARGE}[char]
        if largest is not None and factor >= largest:
            return None
        value = Fraction(digits.replace(",", "")) * factor
        if largest is not None and value >= largest:
            return None
        total, largest = total + value, factor
    return total
