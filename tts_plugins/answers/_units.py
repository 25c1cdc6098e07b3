"""Units, currencies, dates and times in one form. Pure; the case of short units is kept, since MW is not mW."""

from __future__ import annotations

import re

# Only where a name has one meaning: a pound is money or a weight, and a ton is several weights.
_NAMES = {
    "mm": "millimeter millimeters millimetre millimetres milímetros millimètres millimetri мм миллиметров 毫米 "
    "ミリメートル",
    "cm": "centimeter centimeters centimetre centimetres zentimeter centímetros centimètres centimetri см сантиметров "
    "厘米 センチメートル 센티미터",
    "m": "meter meters metre metres metros mètres metri м метр метра метров 米 公尺 メートル 미터",
    "km": "kilometer kilometers kilometre kilometres kilómetros quilômetros quilómetros kilomètres chilometri км "
    "километр километра километров 公里 千米 キロメートル 킬로미터 कि.मी. किलोमीटर كيلومتر كم",
    "in": "inch inches", "ft": "foot feet", "mi": "mile miles",
    "kg": "kilogram kilograms kilogramme kilogrammes kilogramm kilogramos quilogramas chilogrammi кг килограмм "
    "килограмма килограммов 公斤 千克 キログラム 킬로그램 किलोग्राम كيلوغرام كجم",
    "g": "gram grams gramm gramos gramas grammes grammi грамм грамма граммов 克 グラム 그램",
    "mg": "milligram milligrams milligramm miligramos milligrammes мг 毫克", "ms": "millisecond milliseconds 毫秒",
    "s": "second seconds sec secs sekunde sekunden segundos secondes secondi секунда секунды секунд 秒 秒間 초 ثانية",
    "min": "min minute minutes mins minuten minuto minutos minuti минута минуты минут мин 分钟 分鐘 分間 دقيقة मिनट",
    "h": "hour hours hr hrs stunde stunden hora horas heure heures ora ore час часа часов ч 小时 小時 時間 시간 ساعة "
    "ساعات घंटे",
    "days": "day days tag tage día días dias jour jours giorno giorni день дня дней 天 日間 일간",
    "L": "liter liters litre litres litros litri литр литра литров л 升 リットル 리터",
    "mL": "milliliter milliliters millilitre millilitres ml мл 毫升", "Hz": "hertz", "N": "newton newtons",
    "J": "joule joules", "W": "watt watts", "V": "volt volts", "Pa": "pascal pascals", "°": "degree degrees deg",
    "%": "percent pct", "mph": "mph", "€": "euro euros eur евро 欧元 歐元 ユーロ 유로", "£": "gbp",
    "¥": "yen jpy 円 日元 日圓", "元": "yuan cny rmb 人民币 人民幣", "¢": "cent cents", "₹": "rupee rupees inr रुपये रुपए",
    "₽": "rub rur ruble rubles rouble roubles руб рубль рубля рублей", "₩": "won krw 원", "zł": "pln złoty złotych",
    "CHF": "franken", "R$": "brl reais",
    "": "dollar dollars usd us$ dólares доллар доллара долларов 美元 ドル 달러 دولار",
}  # fmt: skip
# Units that are read where they stand right behind their number; all else there is a product, as in 2x.
_JOINED = "cm mm km kg mg ms ml mL Hz kHz MHz GHz kW MW mW GW kWh kJ MJ kPa mA kV mV GB MB KB TB lb lbs oz ft am pm"
JOINED = frozenset(word for word in _JOINED.split(" "))
_UNITS = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_MONEY = {
    **{sign: sign for sign in "€£¥₹₽₩¢₺₫₦₪฿"}, "US$": "", "USD": "", "R$": "R$", "BRL": "R$", "EUR": "€", "GBP": "£",
    "INR": "₹", "JPY": "¥", "CNY": "元", "RMB": "元", "KRW": "₩", "RUB": "₽", "CHF": "CHF", "PLN": "zł", "Rs.": "₹",
    "Rs": "₹",
}  # fmt: skip
MONEY_SIGNS = frozenset(_MONEY.values()) - {"", "¢"}  # a key has these in front of its number
_CELSIUS = re.compile(r"° ?([CF])(?:elsius|ahrenheit)?\Z", re.I)
_US_DOLLARS = re.compile(r"\bU\.?S\.?\s+dollars?\b", re.I)
_PERCENT = re.compile(
    r"\b(?:(?:per|pour|por|pro) (?:cento?|ciento)|prozent|procento?|procentu|procent[aáy]?|percento|porcento)\b"
    r"|процент\w{0,2}|відсотк\w{1,3}",
    re.I,
)
_FRONT = re.compile(rf"(?P<sign>-?)\s*(?P<money>{'|'.join(map(re.escape, _MONEY))})\s*(?P<sign2>-?)(?P<rest>\d.*)")
_MONTHS = [
    "january januar janvier enero janeiro gennaio января",
    "february februar février febrero fevereiro febbraio февраля",
    "march märz mars marzo março марта", "april avril abril aprile апреля", "may mai mayo maio maggio мая",
    "june juni juin junio junho giugno июня", "july juli juillet julio julho luglio июля",
    "august août agosto августа", "september septembre septiembre setembro settembre sept сентября",
    "october oktober octobre octubre outubro ottobre октября", "november novembre noviembre novembro ноября",
    "december dezember décembre diciembre dezembro dicembre декабря",
]  # fmt: skip
_MONTH_OF = {name: i for i, names in enumerate(_MONTHS, 1) for name in names.split()}
_MONTH_OF |= {names[:3]: i for i, names in enumerate(_MONTHS, 1)}
_MONTH = "|".join(sorted(_MONTH_OF, key=len, reverse=True))
_DAY_MONTH = re.compile(
    rf"(\d{{1,2}})(?:st|nd|rd|th|er|\.)?(?:\s+(?:of|de))?\s+({_MONTH})\.?,?(?:\s+de)?\s+(\d{{4}})(?:\s+г\.?)?", re.I
)
_MONTH_DAY = re.compile(rf"({_MONTH})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?,?\s+(\d{{4}})", re.I)
_CHARACTERS = re.compile(r"(\d{4})\s?[年년]\s?(\d{1,2})\s?[月월]\s?(\d{1,2})\s?[日号號일]")
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_HOURS = re.compile(
    r"(\d{1,2})[:.](\d{2})\s?Uhr|(\d{1,2})\s?h\s?(\d{2})(?:\s?min)?|(\d{1,2})[时時点點시]\s?(\d{2})[分분]", re.I
)
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
    text = re.sub(r"\bper\b", "/", _PERCENT.sub("percent", _US_DOLLARS.sub("dollars", text)))
    for word in re.findall(r"[^\W\d_$]+\$?|\d+|[^\s]", re.sub(r"\s+", " ", text).strip()):
        low = word.casefold()
        words.append(_UNITS.get(low, low if len(word) > 3 else word))
    made = ""
    for word in words:
        joined = not made or not (made[-1].isalnum() and word[:1].isalnum())
        made += word if joined else f" {word}"
    made = _CELSIUS.sub(lambda degrees: f"°{degrees[1].upper()}", made).replace("mi/h", "mph")
    if square := re.fullmatch(r"(?:sq|square) (\S+)", made):
        return f"{square[1]}^2"
    if cube := re.fullmatch(r"(?:cu|cubic) (\S+)", made):
        return f"{cube[1]}^3"
    return made


def date(text: str) -> str | None:
    """Return a day as year-month-day; None for other texts. `07/04/1776` is read as in the United States."""
    if match := _DAY_MONTH.fullmatch(text):
        return _day(match[3], _MONTH_OF[match[2].lower()], match[1])
    if match := _MONTH_DAY.fullmatch(text):
        return _day(match[3], _MONTH_OF[match[1].lower()], match[2])
    if match := _ISO.fullmatch(text) or _CHARACTERS.fullmatch(text):
        return _day(match[1], int(match[2]), match[3])
    if match := _SLASHED.fullmatch(text):
        first, second = int(match[1]), int(match[2])
        month, day = (first, second) if first <= 12 else (second, first)
        return _day(match[3], month, str(day))
    return None


def clock(text: str) -> str | None:
    """A time with am or pm, or with the word of a language; None for other texts."""
    if match := _HOURS.fullmatch(text):
        hour, minute = (part for part in match.groups() if part)
        return f"{int(hour)}:{minute}"
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    minutes = [part for part in (match[2], match[3]) if part]
    parts = ":".join([str(int(match[1])), *([] if minutes == ["00"] else minutes)])
    half = match[4].lower()
    return f"{parts} {half}m" if ":" in parts else f"{parts} {half}.m"


def _day(year: str, month: int, day: str) -> str | None:
    return f"{year}-{month:02d}-{int(day):02d}" if 1 <= month <= 12 and 1 <= int(day) <= 31 else None
