"""Units, currencies, dates and times in one form. Pure; the case of short units is kept, since MW is not mW."""

from __future__ import annotations

import re

# Only where a name has one meaning: a pound is money or a weight, and a ton is several weights.
_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres", "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres", "km": "kilometer kilometers kilometre kilometres", "in": "inch inches",
    "ft": "foot feet", "mi": "mile miles", "kg": "kilogram kilograms kilogramme kilogrammes", "g": "gram grams",
    "mg": "milligram milligrams", "s": "second seconds sec secs", "min": "minute minutes mins",
    "h": "hour hours hr hrs", "ms": "millisecond milliseconds", "L": "liter liters litre litres",
    "mL": "milliliter milliliters millilitre millilitres ml", "Hz": "hertz", "N": "newton newtons", "J": "joule joules",
    "W": "watt watts", "V": "volt volts", "Pa": "pascal pascals", "°": "degree degrees deg", "%": "percent pct",
    "mph": "mph", "€": "euro euros eur", "£": "gbp", "¥": "yen jpy", "¢": "cent cents", "₹": "rupee rupees inr",
    "": "dollar dollars usd us$",
}  # fmt: skip
# Units that are read where they stand right behind their number; all else there is a product, as in 2x.
_JOINED = "cm mm km kg mg ms ml mL Hz kHz MHz GHz kW MW mW GW kWh kJ MJ kPa mA kV mV GB MB KB TB lb lbs oz ft am pm"
JOINED = frozenset(word for word in _JOINED.split(" "))
_UNITS = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_MONEY = {"€": "€", "£": "£", "¥": "¥", "₹": "₹", "₽": "₽", "₩": "₩", "¢": "¢", "US$": "", "USD": "", "EUR": "€",
          "GBP": "£", "INR": "₹", "JPY": "¥", "Rs.": "₹", "Rs": "₹", "₺": "₺", "₫": "₫", "₦": "₦", "₪": "₪",
          "฿": "฿"}  # fmt: skip
_PERCENT = re.compile(
    r"\b(?:(?:per|pour|por|pro) (?:cento?|ciento)|prozent|procento?|procentu|procent[aáy]?|percento|porcento)\b"
    r"|процент\w{0,2}|відсотк\w{1,3}",
    re.I,
)
_FRONT = re.compile(
    r"(?P<sign>-?)\s*(?P<money>US\$|[€£¥₹₽₩₺₫₦₪฿]|USD|EUR|GBP|INR|JPY|Rs\.?)\s*(?P<sign2>-?)(?P<rest>\d.*)"
)
_MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
]  # fmt: skip
_MONTH = "|".join(f"{m[:3]}(?:{m[3:]})?" if len(m) > 3 else m for m in _MONTHS) + "|sept"
_DAY_MONTH = re.compile(rf"(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({_MONTH})\.?,?\s+(\d{{4}})", re.I)
_MONTH_DAY = re.compile(rf"({_MONTH})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})", re.I)
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([ap])\.?\s?m\.?", re.I)


def money_in_front(text: str) -> tuple[str, str] | None:
    """A sum with its currency before it as (sum, sign of the currency); dollars have none. None for other texts."""
    match = _FRONT.fullmatch(text)
    if match is None:
        return None
    return f"{match['sign'] or match['sign2']}{match['rest']}", _MONEY[match["money"]]


def unit(text: str) -> str:
    """A unit's short form where it is known, else the words: in lower case where they are longer than three letters."""
    words = []
    text = re.sub(r"\bper\b", "/", _PERCENT.sub("percent", text))
    for word in re.findall(r"[^\W\d_$]+\$?|[^\s]", re.sub(r"\s+", " ", text).strip()):
        low = word.casefold()
        words.append(_UNITS.get(low, low if len(word) > 3 else word))
    made = ""
    for word in words:
        joined = not made or not (made[-1].isalnum() and word[:1].isalnum())
        made += word if joined else f" {word}"
    made = made.replace("° C", "°C").replace("° F", "°F").replace("mi/h", "mph")
    if square := re.fullmatch(r"(?:sq|square) (\S+)", made):
        return f"{square[1]}^2"
    if cube := re.fullmatch(r"(?:cu|cubic) (\S+)", made):
        return f"{cube[1]}^3"
    return made


def date(text: str) -> str | None:
    """Return a day as year-month-day; None for other texts. `07/04/1776` is read as in the United States."""
    if match := _DAY_MONTH.fullmatch(text):
        return _day(match[3], _month(match[2]), match[1])
    if match := _MONTH_DAY.fullmatch(text):
        return _day(match[3], _month(match[1]), match[2])
    if match := _ISO.fullmatch(text):
        return _day(match[1], int(match[2]), match[3])
    if match := _SLASHED.fullmatch(text):
        first, second = int(match[1]), int(match[2])
        month, day = (first, second) if first <= 12 else (second, first)
        return _day(match[3], month, str(day))
    return None


def clock(text: str) -> str | None:
    """A time with am or pm; None for other texts."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    parts = ":".join([str(int(match[1])), *(part for part in (match[2], match[3]) if part)])
    half = match[4].lower()
    return f"{parts} {half}m" if match[2] else f"{parts} {half}.m"


def _month(name: str) -> int:
    return next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(name.lower()[:3]))


def _day(year: str, month: int, day: str) -> str | None:
    return f"{year}-{month:02d}-{int(day):02d}" if 1 <= month <= 12 and 1 <= int(day) <= 31 else None
