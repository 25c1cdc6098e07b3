"""One form for characters that mean the same: digits, quotes, brackets, dashes and blanks of all scripts. Pure."""

from __future__ import annotations

import re
import unicodedata

# Compatibility forms (NFKC) lose what these mean: "x²" would become "x2", and "2½" would become "21/2".
_RAISED = {c: p for c, p in zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni", strict=True)}
_LOWERED = {c: p for c, p in zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ", "0123456789+-=()ni", strict=True)}
_RUNS = re.compile(f"[{''.join(_RAISED)}]+|[{''.join(_LOWERED)}]+|[\u00bc-\u00be\u2150-\u215e\u2189]")
_WIDE_COMMA = re.compile("(?<=[０-９])，(?=[０-９])")  # within a number, all of which is wide

_SINGLE = {
    **dict.fromkeys("“”„‟«»「」『』〝〞＂《》〈〉", '"'),
    **dict.fromkeys("‘’‚‛‹›′ʼ＇ʹ", "'"),
    **dict.fromkeys("‐‑‒–—―−﹣－⁃", "-"),
    **dict.fromkeys("【〔〖［", "["),
    **dict.fromkeys("】〕〗］", "]"),
    **dict.fromkeys("：∶︰፡፦៖ःঃ﹕՝", ":"),
    **dict.fromkeys("。｡।॥։።။។", ". "),
    **dict.fromkeys("，、،､", ", "),
    **dict.fromkeys("\u2028\u2029\x85\x0b\x0c", "\n"),
    "″": "''", "‴": "'''", "；": "; ", "؛": ";", "！": "! ", "？": "? ", "؟": "?", "٫": ".", "٬": ",", "٪": "%",
    "º": "°", "˚": "°", "İ": "I", "ı": "ı", "…": "...", "⋯": "...", "‰": "‰",
    "㎟": "mm^{2}", "㎠": "cm^{2}", "㎡": "m^{2}", "㎢": "km^{2}", "㎣": "mm^{3}", "㎤": "cm^{3}", "㎥": "m^{3}",
}  # fmt: skip


class _Table(dict[int, str]):
    """The replacement of each character, which is computed when it first occurs."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in _SINGLE:
            plain = _SINGLE[char]
        elif category == "Nd":
            plain = str(unicodedata.decimal(char))
        elif category == "Zs":
            plain = " "
        elif char in "\n\t":
            plain = char
        elif category in ("Cf", "Cc", "Cs"):  # what shows nothing; unpaired surrogates cannot be written out
            plain = ""
        else:
            plain = char
        self[code] = plain
        return plain


_TABLE = _Table()


def fold(text: str) -> str:
    """The text with plain digits, quotes, dashes, blanks and line ends, in compatibility form.

    Raised and lowered digits become `^{2}` and `_{2}`, and a single character for a fraction becomes `1/2`.

    >>> fold("x² ＝ １½，٤٢")
    'x^{2} = 1 1/2, 42'
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text if text.isprintable() else text.translate(_TABLE)
    text = _RUNS.sub(_spelled, text)
    if "，" in text:
        text = _WIDE_COMMA.sub(",", text)
    for _ in range(2):  # compatibility forms may hold what the table knows
        text = unicodedata.normalize("NFKC", text.translate(_TABLE))
    return text.replace("\N{FRACTION SLASH}", "/")


def _spelled(match: re.Match[str]) -> str:
    run = match[0]
    if run[0] in _RAISED:
        return "^{" + "".join(_RAISED[c] for c in run) + "}"
    if run[0] in _LOWERED:
        return "_{" + "".join(_LOWERED[c] for c in run) + "}"
    fraction = unicodedata.normalize("NFKC", run).replace("\N{FRACTION SLASH}", "/")
    before = match.string[match.start() - 1 : match.start()]
    return f" {fraction}" if before.isdigit() else fraction
