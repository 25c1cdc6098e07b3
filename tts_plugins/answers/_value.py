"""Where an answer begins is known: what belongs to it, and what is said behind it. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from tts_plugins.answers._json_text import FENCE, objects
from tts_plugins.answers._markers import CHOICES, alternatives, folded

_LINE = 1000
_SKIP = re.compile(r"(?:(?<=\n)[ \t>]+|\s|[*_]{1,3}(?=\S)|#{1,6}[ \t]|\|[ \t]|•[ \t]+(?=\S)|(?<=\n)-[ \t]+(?=\S))*+")
_DISPLAY = {"$$": "$$", "\\[": "\\]", "\\begin{": "\\end{"}
_ABBREVIATION = re.compile(
    r"(?:\b[^\W\d_]|\b(?:mr|mrs|ms|dr|st|vs|no|etc|approx|ca|jr|sr|prof|p\.m|a\.m|e\.g|i\.e|u\.s))\Z", re.I
)
_SENTENCE = re.compile(r"[.!?](?=[\s*_)\"']|\Z)|(?<=\d)\.(?=[^\W\d_])(?![A-Za-z])")
_FACTORIAL = re.compile(r"\b(?:factorial|permut|arrange|combinat)|[\w)]!(?!=)", re.I)
_LETTER = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf|mathsf|textit|boxed)\s*\{|[*_$({\[\"'`]|\\\()*"
    rf"(?P<letter>[{CHOICES}])"
    rf"(?P<close>[)\]}}*_$]|(?<=[\"'`][{CHOICES}])[\"'`]|\\\))*(?P<rest>.*)", re.DOTALL,
)  # fmt: skip
_STARRED = re.compile(r"[^*]*[^\W\d_]\*(?![*\w])[^*]*\Z")  # A*, in which no other star opens what this one closes
_AFTER_LETTER = re.compile(r"(?:[.:]|\s*[-,;(]|\Z|\s+(?:and|so|or)\b(?!\s+[A-J]\b))|\s*\n")
_NUMBER_FIRST = re.compile(r"(?:[-+$€£¥₹(≈~]|\\\(|\\\$|\s)*\d")
_DASHED = re.compile(r"\s+-+\s+(?=[^\W\d_]{2})")
_REMARK_IN_PARENTHESES = re.compile(
    r"\s*\((?!mod\b)(?:[^()]*[^\W\d_]{2,}[^()]*\s[^()]*|rounded|approximately|approx\.?|exactly|exact)\)\s*\Z", re.I
)
_COMMA_WORDS = re.compile(r",\s+(?!(?:or|and|und|oder|et|ou|y|e|o|и|или)\b)(?=[^\W\d_A-Z]{2,}[ .,])")
_COMMA_PHRASE = re.compile(r",\s+(?=(?:the|a|an|one|its|our|as|not|which|who|and)\s)", re.I)
_EQUATION = re.compile(r"[-+*/^().\d\s\\{}×·÷$,a-z]*\d[^=]*=\s*(?P<value>[^=]+)\Z")
_SAYS = re.compile(r"\b(?:is|are|equals|was)\s+(?P<value>[-+$€£\\(]{0,4}\d[^=]{0,40}|\(?[A-J]\)?)\Z")


def value_at(text: str, at: int, languages: tuple[str, ...] | None) -> str:
    """The answer that begins at this place: a display formula, a block, JSON, or the rest of the line, cut."""
    skipped = _SKIP.match(text, at)
    start = skipped.end() if skipped else at
    for opening, closing in _DISPLAY.items():
        if text.startswith(opening, start):
            end = text.find(closing, start + len(opening), start + 2 * _LINE)
            if end >= 0:
                if opening == "\\begin{":
                    end = text.find("}", end) + 1
                    return text[start:end]
                return text[start + len(opening) : end].strip()
    if text.startswith(("```", "~~~"), start):
        block = FENCE.match(text, text.rfind("\n", 0, start) + 1)
        if block or text.find(text[start : start + 3], start + 3, start + _LINE) < 0:
            return block["body"].strip() if block else ""
    if text.startswith("{", start):
        found = objects(text[start : start + 20 * _LINE])
        if found and found[0][0] == 0:
            return text[start : start + found[0][1]]
    end = text.find("\n", start)
    line = text[start : end if end >= 0 else len(text)]
    bold = "**" if text[at:start].endswith("**") else ""
    if bold and "**" in line:
        inside, _, after = line.partition("**")
        if re.match(r"\s*(?:[.,;:!]|\Z|[^\W\d_(-])", after) or not after.strip():
            line = inside
    line = _without_closing_star(text[text.rfind("\n", 0, at) + 1 : start], line)
    if "!" in line and "=" not in line and len(_FACTORIAL.findall(text, 0, 20 * _LINE)) < 2:
        line = re.sub(r"(?<=\d)!+(?=[\s*_]|\Z)", ".", line)  # "The answer is 42!" where nothing else is a factorial
    return cut(line, languages)


def _without_closing_star(before: str, line: str) -> str:
    """Without the star that closes what one before the answer has opened: `*Answer: A*` is in italics."""
    opened = before.replace("**", "").lstrip().removeprefix("* ").count("*") % 2
    return re.sub(r"(?<!\*)\*(?=[\s.]*\Z)", "", line) if opened else line


def cut(line: str, languages: tuple[str, ...] | None = None) -> str:
    """The answer without the rest of its sentence, words of no weight before it, and reasons behind it."""
    line = line[:_LINE].strip()
    line = re.sub(r"^[*_]{1,3}(?=[^\s*_])", "", _unfilled(line, languages))
    if letter := choice_of(line, languages):
        return letter
    line = _sentence(line)
    line = _reasons(line, languages)
    line = _tail(line, languages)
    line = line.strip().rstrip("_" if _STARRED.match(line.strip()) else "*_").strip()
    if (found := _EQUATION.fullmatch(line)) and not re.search(r"[A-Z]|\\[a-z]*[a-z]\s*=", line):
        left = line[: found.start("value")]
        if re.search(r"\d\s*[-+*/^×·÷]|\\(?:times|cdot|frac)", left):
            return found["value"].strip()
    if len(line.split()) > 3 and (found := _SAYS.search(line)):
        return found["value"].strip()
    return line


def choice_of(line: str, languages: tuple[str, ...] | None = None) -> str | None:
    """The letter of a choice at the start of a line: (B), B., **B**, option B, B) Paris, B because …; else None."""
    low = folded(line[:60])
    if option := _option(languages).match(low, len(line) - len(line.lstrip("*_\"'`$"))):
        line = line[option.end() :]
        line = line[:6].upper() + line[6:]  # "option b"
    match = _LETTER.match(line)
    if match is None:
        return None
    letter, closed, rest = match["letter"], bool(match["close"]), match["rest"]
    opened = match.start("letter") > 0
    if (rest[:1] == "'" and not opened) or unicodedata.category(rest[:1] or " ")[0] == "M":
        return None  # A'; the beginning of a word in a script that hangs its vowels on consonants
    if not opened and (_STARRED.match(line) or re.match(r"#|[-+](?=[\s.*_]*\Z)", rest)):
        return None  # A*, C#, A-
    if not rest.strip(" .*_$)}\"'`!\\]"):
        return letter
    if not closed and not opened:
        if re.match(r"\.\s?[A-Z]\.", rest) or re.match(r"[\w'^_(=+*/-]|\s*[=+*/<>^]", rest):
            return None  # J. R. R. Tolkien; a word; a formula
        spoken = re.match(r"\s+(?:-|\()|\s*\n", rest) or _because(languages).match(folded(rest).lstrip())
        if rest[0] == " " and not option and not spoken:
            return None  # "A cat"
    elif rest[:1].isalnum() or re.match(r"\s*(?:[=+*/^_]|-\s*\d)", rest):
        return None
    if re.match(rf"[\s.)]*(?:,|and\b|or\b|&|und\b|et\b|y\b)[\s,]*(?:and\s+|or\s+)?[*_(]*[{CHOICES}]\b(?!\w)", rest):
        return None  # A and C
    if re.search(rf"(?<!\w)[{CHOICES}]\s*[:=]", rest):
        return None  # A: 5, B: 3
    if re.match(r"\s*,\s*[-(]?\d", rest) or re.match(r"\s*:\s*\(?-?\d", rest):
        return None  # coordinates, (A, 2)
    return letter


def _unfilled(line: str, languages: tuple[str, ...] | None) -> str:
    """Without words of no weight before a number, a formula, a letter or a name."""
    for _ in range(4):
        low = folded(line[:80])
        match = _filler(languages).match(low)
        if match is None or match.end() >= len(line):
            break
        rest = line[match.end() :]
        given = match[0].startswith(("given by", "as follows", "found to", "going to", "that of"))
        if not (given or _NUMBER_FIRST.match(rest.lstrip("*(")) or re.match(r"[$\\*(]|[A-J]\b|[A-Z][^\W\d_]+", rest)):
            break
        line = rest
    article = _article(languages).match(folded(line[:80]))
    return line[article.end() :] if article and _NUMBER_FIRST.match(line, article.end()) else line


def _sentence(line: str) -> str:
    """Up to the end of the first sentence; initials and abbreviations end none."""
    for end in _SENTENCE.finditer(line):
        before = line[: end.start()]
        if end[0] != "." and end.end() < len(line) and line[end.end()] not in " \t*_":
            continue
        if before.count("$") % 2 or before.count("{") > before.count("}") or not before.strip():
            continue
        if end[0] == "." and ((_ABBREVIATION.search(before) and end.end() < len(line)) or before.endswith(".")):
            continue
        if end[0] == "!" and before[-1:].isdigit() and end.end() < len(line) and line[end.end()] != " ":
            continue
        return line[: end.start()] if end[0] == "." else line[: end.end()]
    return line


def _reasons(line: str, languages: tuple[str, ...] | None) -> str:
    number = bool(_NUMBER_FIRST.match(line))
    if dash := _DASHED.search(line):
        line = line[: dash.start()]
    low = folded(line)
    if len(low) == len(line) and (why := _because_behind(languages).search(low)) and why.start() > 0:
        line = line[: why.start()]
    if comma := (_COMMA_WORDS if number else _COMMA_PHRASE).search(line):
        line = line[: comma.start()]
    while remark := _REMARK_IN_PARENTHESES.search(line):
        if remark.start() == 0:
            break
        line = line[: remark.start()]
    return re.sub(r"(?:[ ,;:]+-*)+\Z", "", line)  # the sign of Cl- and of A- is part of it


def _tail(line: str, languages: tuple[str, ...] | None) -> str:
    for _ in range(3):
        match = _tails(languages).search(folded(line.rstrip(" .!*")))
        if match is None or match.start() == 0:
            break
        line = line[: match.start()].rstrip(" ,")
    return line


def _languages(languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if languages is None else tuple(dict.fromkeys((*languages, "en")))


@cache
def _filler(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    return re.compile(rf"[*_]{{0,2}}{alternatives('filler', _languages(languages))}[\s,:=]{{0,3}}")


@cache
def _option(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    words, article = (alternatives(kind, _languages(languages)) for kind in ("option", "article"))
    letter = rf"[*_(\[$\\\"'`]{{0,4}}[{CHOICES.lower()}](?![^\W\d_])"
    alone = rf"{letter}[*_)\]$\"'`]{{0,4}}\s?(?:[.,;:(]|\Z)"  # "the B", and not "the A train"
    return re.compile(rf"(?:{article}[ \t]{{0,3}})?{words}[\s:]{{0,3}}(?={letter})|{article}[ \t]{{0,3}}(?={alone})")


@cache
def _article(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    return re.compile(rf"{alternatives('article', _languages(languages))}[ \t]{{1,3}}")


@cache
def _because(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    because, aside = (alternatives(kind, _languages(languages) or ("en",)) for kind in ("because", "aside"))
    return re.compile(f"{because}|{aside}")


@cache
def _because_behind(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    because, aside = (alternatives(kind, _languages(languages) or ("en",)) for kind in ("because", "aside"))
    return re.compile(rf"[\s,;]{{1,3}}{because}|[,;]\s{{1,3}}{aside}")


@cache
def _tails(languages: tuple[str, ...] | None) -> re.Pattern[str]:
    return re.compile(rf"\s{{0,2}}{alternatives('tail', _languages(languages) or ('en',))}\Z")
