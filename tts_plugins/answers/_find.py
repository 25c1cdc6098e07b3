"""Which of the answers in a text is the one that it ends with. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import cache

from tts_plugins.answers._boxes import last_answer
from tts_plugins.answers._json_text import FENCE, loads, objects
from tts_plugins.answers._keys import canonical_json
from tts_plugins.answers._markers import alternatives, decimal_comma, folded, languages_of
from tts_plugins.answers._numbers import Style
from tts_plugins.answers._statements import Statement, chosen, inverted, mentions, stated
from tts_plugins.answers._value import choice_of, cut

_HASHES = re.compile(r"^[ \t>]*#{4}(?!#)[ \t]*(?P<value>\S[^\n]*)", re.MULTILINE)
_STARTS_A_HEADING = re.compile(r"\d{1,3}[.)]\s+\S|\W*[^\W\d_]{2,}")
_TAG = re.compile(r"<(?P<closes>/?)(?:final_?)?(?:answer|solution)>", re.IGNORECASE)
_ROW = re.compile(r"^[ \t]*\|(?P<cells>[^\n]*)\|[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"[\s|:-]*-[\s|:-]*\Z")
_EQUALS = re.compile(r"(?:^|[\d)\]}%]\s*)=\s*(?P<value>[-+€£\\({]{0,4}[\d.][^=<>≈$]{0,40}|[^\W\d_])\s*\$?\s*\.?\s*\Z")
_FORMULA = re.compile(  # up to the next opening at most: texts of openings alone are read in linear time, too
    r"\$\$(?P<a>[^$]+)\$\$|\$(?P<b>[^$\n]+)\$|\\\((?P<c>(?:(?!\\\().)+?)\\\)|\\\[(?P<d>(?:(?!\\\[).)+?)\\\]",
    re.DOTALL,
)
_SUPPOSES = re.compile(r"\W*(?:let|suppose|assume|if|since|given|consider|where|for)\b", re.IGNORECASE)
_ALONE = re.compile(r"[*_$\\(\[\s]*(?:[-+]?[$€£]?\d[\d.,/%]*|\(?[A-J]\)?)[)\]\\$*_\s]*\.?")
_SUBJECT = re.compile(r"(?P<name>[A-Z][^\W\d_]+(?:\s[A-Z][^\W\d_]+){0,3})\s+(?:is|was)\s+the\s+[^.!?\n]{1,120}[.!]?")
_NO_SUBJECT = {"this", "that", "it", "the", "there", "here", "what", "he", "she", "they", "we", "which", "who"}
# "So it must be" before a number, "Therefore," before an equation
_OPENING = re.compile(
    r"\A(?:(?:so|thus|hence|therefore|then),? )?(?:(?:it|that|this)(?: is|'s|(?: \w+)? be) (?:probably |about )?"
    r"(?=[-+$€£\\(]{0,3}\d)|(?<=[ ])(?=[^\W\d_] ?=))", re.IGNORECASE,
)  # fmt: skip
_REFUSAL = re.compile(
    r"(?:i(?:'m| am)? )?(?:sorry|afraid|unable|cannot|can't|can not|won't|will not|do not know|don't know|could not|"
    r"couldn't)\b|(?:let me|let's|let us|i will|i'll|okay|sure|thinking|hmm|wait|well|one moment|here (?:is|are))\b|"
    r"as an ai\b|es tut mir leid|ich wei[sß]+ (?:es )?nicht|désolé|je ne (?:le )?(?:sais|peux)|lo siento|"
    r"no (?:sé|puedo)|desculpe|"
    r"não (?:sei|posso)|mi dispiace|non (?:so|posso)|извините|простите|я не (?:знаю|могу)|对不起|抱歉|"
    r"我(?:不知道|不能|无法)|申し訳|すみません|わかりません|죄송|모르겠|maaf|xin lỗi|üzgünüm|przepraszam|آسف|عذرا|"
    r"क्षमा|माफ",
    re.IGNORECASE,
)
_MOST, _LONG = 100, 1000
_SHORT, _SHORT_WORDS = 64, 4
_ENGLISH = re.compile(r"\b(?:the|is|we|of|and|that|so|there|are|this)\b", re.IGNORECASE)


def find(text: str) -> Statement | None:
    """The answer that a text without thoughts ends with."""
    stripped = text.strip()
    if stripped[:1] in ("{", "[") and canonical_json(stripped) is not None:
        return Statement(0, stripped)
    low = folded(text)
    documents = list(_objects(text))
    inside = [(d.at, d.at + len(d.raw)) for d in documents]
    sure, doubtful = list(documents), list[Statement]()
    for source in (*certain(text, low), _tables(text)):
        for each in source:
            if any(a <= each.at < b for a, b in inside):
                continue  # a member of a document is not a statement
            (doubtful if each.doubtful else sure).append(each)
            if not each.doubtful:
                break  # they come from the end
    if sure:
        return max(sure, key=lambda s: s.at)
    result = next((s for s in stated(text, low, "result") if not s.doubtful and _is_short(s.raw)), None)
    if result is not None:
        return result
    return _unmarked(text, low) or max(doubtful, key=lambda s: s.at, default=None)


def certain(text: str, low: str) -> list[Iterator[Statement]]:
    """Answers with a marker that names them: several sources, each of which gives its last one first."""
    box = last_answer(text)
    return [
        iter([_within(*box)] if box else []), _tagged(text), _hashes(text), stated(text, low, "answer"),
        chosen(text, low), inverted(text, low),
    ]  # fmt: skip


def _tagged(text: str) -> Iterator[Statement]:
    """Return the text in the last `<answer>`, or all that follows it if it is never closed."""
    if "<" not in text or not (tags := list(_TAG.finditer(text))):
        return
    last = next((i for i in range(len(tags) - 1, -1, -1) if not tags[i]["closes"]), None)
    if last is None:
        return
    end = tags[last + 1].start() if last + 1 < len(tags) else len(text)
    if value := text[tags[last].end() : end].strip():
        yield Statement(tags[last].start(), _inner(value))


def _within(at: int, content: str) -> Statement:
    r"""A box's content; where that is a sentence that states an answer, only the answer."""
    if re.search(r"[^\W\d_]{3}", content) and len(content) < 300:
        plain = re.sub(r"\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}", r"\1", content)
        inside = [s for s in stated(plain, folded(plain), "answer") if not s.doubtful]
        if inside:
            return Statement(at, inside[-1].raw, inside[-1].languages)
    return Statement(at, choice_of(content) or content)


def _inner(value: str) -> str:
    if box := last_answer(value):
        return box[1]
    return value if "\n" in value else cut(value)


def _hashes(text: str) -> Iterator[Statement]:
    """Return the text after ####, as in GSM8K, unless it is a heading."""
    for match in reversed(deque(_HASHES.finditer(text), maxlen=_MOST) if "####" in text else ()):
        value = match["value"].strip()
        more = bool(text[match.end() :].strip())
        if _STARTS_A_HEADING.match(value) and (more or _step().match(folded(value))):
            continue
        if _names_an_answer(folded(value)):
            continue  # "#### Answer" is a heading over one
        yield Statement(match.start(), cut(value))


@cache
def _step() -> re.Pattern[str]:
    return re.compile(rf"\W{{0,6}}{alternatives('step')}\W{{0,3}}\d")


def _names_an_answer(low: str) -> bool:
    return low.strip("*_#: ").removeprefix("final ").removeprefix("the ") in languages_of("answer")


def _objects(text: str) -> Iterator[Statement]:
    """JSON in fences and in prose."""
    if "{" not in text and "[" not in text:
        return
    fenced = list[tuple[int, int]]()
    if "```" in text or "~~~" in text:
        for block in FENCE.finditer(text):
            fenced.append(block.span())
            body = block["body"].strip()
            if body[:1] in ("{", "["):
                try:
                    loads(body)
                except ValueError:
                    continue
                yield Statement(block.start("body"), body)
    if '{"' in text or re.search(r'\{\s+"', text):
        for start, end, _ in objects(text):
            if not any(a <= start < b for a, b in fenced):
                yield Statement(start, text[start:end])


def _tables(text: str) -> Iterator[Statement]:
    """The last cell of a column that is headed as the answer, in the last table."""
    rows = list(_ROW.finditer(text)) if "|" in text else []
    rule = next((i for i in range(len(rows) - 2, 0, -1) if _RULE.match(rows[i]["cells"])), None)
    if rule is None:
        return
    columns = [i for i, c in enumerate(rows[rule - 1]["cells"].split("|")) if _names_an_answer(folded(c.strip(" *_")))]
    cells = rows[-1]["cells"].split("|")
    if columns and columns[-1] < len(cells) and (value := cells[columns[-1]].strip()):
        yield Statement(rows[-1].start(), cut(value))


def _unmarked(text: str, low: str) -> Statement | None:
    """The answer of a text that names none: its last line, its subject, or all of it where it is short."""
    value = text.strip()
    shows = "$" in value[-40:] or value.endswith(("\\]", "\\)", "\\)."))  # a formula is not a refusal
    if not value or (_REFUSAL.match(value) and not shows):
        return None
    if _names_an_answer(low.strip()):
        return None  # "Answer:", and nothing behind it
    if "\\boxed" in value and not value.strip("\\boxed{} $"):
        return None
    if opening := _OPENING.match(value):
        value = value[opening.end() :]
    if (block := FENCE.fullmatch(value)) and "\n" not in (body := block["body"].strip()) and body:
        value = body  # a fence around one line
    lines = [line.strip() for line in value.split("\n") if line.strip()]
    last = lines[-1]
    formulas = list(_FORMULA.finditer(value)) if "$" in value or "\\" in value else []
    if len(formulas) == 1 and formulas[0].span() == (0, len(value)) and len(value) < _LONG:
        return Statement(0, next(part for part in formulas[0].groups() if part).strip())
    if yes := _yes().match(low.strip()):
        return Statement(0, value[: yes.end()].rstrip(" .,;:-!"))
    if "=" in last and len(last) < 200 and (found := _EQUALS.search(last)):
        return Statement(0, cut(found["value"]))
    if len(lines) > 1:
        return Statement(0, choice_of(last) or last.strip("*_ ")) if _ALONE.fullmatch(last) else None
    if "\\boxed" in value:
        return None
    if formulas and not _SUPPOSES.match(last) and re.fullmatch(r"\s*[.]?\s*", value[formulas[-1].end() :]):
        shown = next(part for part in formulas[-1].groups() if part).strip()
        if re.search(r"[\d=<>\\]", shown):  # a formula that says something, at the end of all
            return Statement(0, shown)
    named = _SUBJECT.fullmatch(value) if len(value.split()) > _SHORT_WORDS else None
    if named and named["name"].split()[0].lower() not in _NO_SUBJECT:
        return Statement(0, named["name"])
    if len(value) <= _SHORT and len(value.split()) <= _SHORT_WORDS:
        return Statement(0, choice_of(value) or value)
    return None


@cache
def _yes() -> re.Pattern[str]:
    return re.compile(rf"[*_]{{0,2}}{alternatives('yesno')}[*_]{{0,2}}(?:[,.;:!]\s|\s-\s|\s*\Z|\n)")


def _is_short(raw: str) -> bool:
    return len(raw) <= _SHORT and len(raw.split()) <= _SHORT_WORDS and "\n" not in raw


def style_of(text: str, found: Statement) -> Style | None:
    """Whether a point or a comma stands before decimals, by the language of the marker, or of the text; None where
    neither says."""
    if found.languages:
        comma = decimal_comma(found.languages)
        return None if comma is None else "comma" if comma else "point"
    digits = re.fullmatch(r"\D{0,3}(\d{1,3}(?:[,. ]\d{3})+)\D{0,12}", found.raw)
    if digits and re.search(rf"(?<![\d.,]){re.sub(r'[,. ]', '', digits[1])}(?![\d.,]*\d)", text):
        return "comma" if "." in digits[1] else "point"
    if len(_ENGLISH.findall(f"{text[:300]} {text[-300:]}")) > 2:
        return "point"
    low = folded(text)
    for kind in ("answer", "result", "step"):
        last = next(mentions(low, kind), None)
        comma = decimal_comma(last[1]) if last else None
        if comma is not None:
            return "comma" if comma else "point"
    return None
