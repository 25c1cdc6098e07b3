"""Reading answers never fails, never hangs, and settles in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tts_plugins.answers import boxed, extract, marked, normalise, unfinished

PIECES = [
    "\\boxed{",
    "{",
    "}",
    "answer",
    "final ",
    "is",
    ":",
    "\n",
    " ",
    "####",
    "```json\n",
    "```",
    "[",
    "]",
    "1",
    "e",
    "9",
    ".",
    ",",
    "-",
    "/",
    "$",
    "*",
    "\\text{",
    "\\frac{",
    "\\left",
    '"',
    "'",
    "é",
    "ß",
    "İ",
    "\x0b",
    "_",
    "a",
    "NaN",
    "1e999",
    "\\",
    "!",
    "%",
    "^\\circ",
    "\u2028",
    "٣",
    "ŉ",
    "½",
    "²",
    "(",
    ")",
    "^",
    "=",
    "\\sqrt",
    "\\{",
    "\\}",
    " cm",
    "€",
    "|",
    "<think>",
    "</think>",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "&",
    "\\\\",
    "(B)",
    "答案",
    "是",
    "：",
    "。",
    "Antwort",
    " ist ",
    "x",
    "~~~",
    "if ",
    "not ",
    "0.",
    "'",
    "\u200f",
]
texts = st.text() | st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(max_examples=300)
@given(texts)
@example("1e-999")
@example('*"*"a.*.*')
@example("*\x0b*a")
@example("\\text{\\text{A}}")
@example("$[1, 2]$")
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@settings(max_examples=300)
@given(texts)
def test_extract_never_raises_and_gives_a_normal_form(text: str) -> None:
    answer = extract(text)
    assert answer is None or (answer != "" and normalise(answer) == answer)


@settings(max_examples=300)
@given(texts, st.integers(-(10**14), 10**14))
def test_a_box_at_the_end_wins(text: str, number: int) -> None:
    if not unfinished(f"{text} x") and not any(mark in text for mark in ("```", "~~~", "not ")):
        assert extract(f"so {text.strip('[{')} \\boxed{{{number}}}") == str(number)


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "x"]), max_size=14).map("".join))
def test_boxed_is_the_last_that_balances(text: str) -> None:
    found, start = None, text.find("\\boxed{")
    while start >= 0:
        depth = 1
        for i in range(start + 7, len(text)):
            depth += {"{": 1, "}": -1}.get(text[i], 0)
            if depth == 0:
                found = text[start + 7 : i]
                break
        start = text.find("\\boxed{", start + 1)
    assert boxed(text) == found


@given(st.integers(-(10**14), 10**14))
def test_thousands_separators_mean_nothing(number: int) -> None:
    assert normalise(f"{number:,}", "point") == normalise(str(number)) == str(number)
    assert normalise(f"{number:,}".replace(",", "."), "comma") == str(number)
    assert extract(f"The answer is {number:,}.") == extract(f"Die Antwort ist {number:,}.".replace(",", "."))


# Different whole numbers never share a key, however they are grouped: a list of numbers is not a number.
@given(st.lists(st.integers(0, 999), min_size=2, max_size=4))
def test_a_list_of_numbers_is_never_one_number(parts: list[int]) -> None:
    for opening, closing in ("()", "[]"):
        assert normalise(opening + ",".join(map(str, parts)) + closing) != normalise("".join(map(str, parts)))
    assert normalise(", ".join(map(str, parts))) != normalise("".join(map(str, parts)))


SIZE = 4 * 10**5
HOSTILE = {
    "brackets": "[" * SIZE,
    "braces": '{"a":' * (SIZE // 5),
    "boxes": "\\boxed{" * (SIZE // 7),
    "closed boxes": "\\boxed{" * (SIZE // 8) + "}" * (SIZE // 8),
    "box and blanks": "\\boxed" + " " * SIZE,
    "blanks": "answer is" + " " * SIZE,
    "blank lines": "answer" + "\n " * (SIZE // 2),
    "final": "final" + " " * SIZE,
    "finals": "final " * (SIZE // 6),
    "markers": "answer:" * (SIZE // 7),
    "marker lines": "answer \n" * (SIZE // 8),
    "stars": "answer" + "*" * SIZE,
    "hashes": "#" * SIZE,
    "fences": "```\n" * (SIZE // 4),
    "open fences": "```" + "\n" * SIZE,
    "texts": "\\text{" * (SIZE // 7) + "}" * (SIZE // 7),
    "fractions": "\\frac{" * (SIZE // 6),
    "dots and stars": "a" + ".*" * (SIZE // 2),
    "digits": "9" * SIZE,
    "commas": "1" + ",000" * (SIZE // 4),
    "decimals": "0." + "1" * SIZE,
    "exponent": "1e" + "9" * SIZE,
    "huge exponent": "1e999999999",
    "json exponent": '{"a": 1e999999999}',
    "json digits": "[" + "9" * SIZE + "]",
    "slashes": "1/" * (SIZE // 2),
    "quotes": '"' * SIZE,
    "sentences": "The answer is 1. " * (SIZE // 17),
    "one word": "x" * SIZE,
}


PIECES_OF_MARKERS = [
    "a",
    "B",
    "A ",
    "word ",
    "\n",
    "\n\n",
    "$",
    "$$",
    "\\",
    "\\[",
    "_",
    "^",
    ":",
    "=",
    ",",
    "-",
    " - ",
    "|",
    "|a|\n",
    ">",
    "<",
    "<think>",
    "</think>",
    "?",
    "(",
    ")",
    "`",
    "~~~\n",
    "答",
    "答案",
    "答案是",
    "คำตอบ",
    "الإجابة ",
    "😀",
    "#### ",
    "####a\n",
    "the answer is ",
    "answer ",
    "if the answer ",
    "\\boxed{1}",
    "\\boxed{1}, ",
    "\\frac{1}",
    "<answer>",
    "<answer>1</answer>",
    '{"a":1}',
    '{"a',
    "| answer |\n|---|\n",
    "42 is the answer ",
    "<|channel|>final<|message|>",
    "step 1:\n",
    "'",
    "9",
    "9,",
    "yes. ",
    "\u200d",
    "a\u0301",
    "²",
    "½",
    "i choose ",
    "option ",
    "because ",
    "です",
    ".",
    ". ",
    "\\begin{a}",
    "\\begin{pmatrix}",
    "\\sqrt",
    "_{",
    "^{",
    "answer: ",
    "answer:\n",
    "answer a b c d e f g h ",
    "\r\n",
    "\t",
    "٤",
    "\u200f",
]
HOSTILE |= {f"only {piece!r}": (piece * SIZE)[: SIZE // 5] for piece in PIECES_OF_MARKERS}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_texts_are_read_in_linear_time(name: str) -> None:
    """Four times the text takes no more than about four times the time: nothing is tried in every division."""
    text = HOSTILE[name]
    for read in (extract, normalise, marked):
        small, large = (_seconds(read, text[: len(text) // part]) for part in (8, 2))
        assert large < 8 * small + 0.25, (read.__name__, small, large)


def _seconds(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    read(text)
    return time.process_time() - start
