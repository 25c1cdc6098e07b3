r"""The answer inside a text, in a form in which equal answers compare equal.

`extract` takes off what the model thought, and finds the last statement of an answer, whatever its form and language:
`\boxed{…}`, `#### 42`, "The answer is 42", `Antwort: 42`, `## Answer` over a line, `<answer>`, a JSON object. A text
without any of these is its own answer where it is short. Remarks about an answer ("the answer is unique"), headings
and refusals are none. Where that does not fit, give your own function: `solve(..., answer=function)`.

Words of other languages go into `markers.txt`, one line each.
"""

# What reads is loaded when the first text comes: its patterns take longer to build than all else that is imported.

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

if TYPE_CHECKING:
    from fractions import Fraction

__all__ = [
    "Answer", "AnswerKey", "boxed", "equivalent", "extract", "marked", "marker_pattern", "normalise", "number_value",
    "prepare", "read_json", "remembered", "unfinished", "without_reasons", "without_thoughts",
]  # fmt: skip

AnswerKey = Callable[[str], str | None]
_T = TypeVar("_T")
_SHORT = 400

_GROUPED = re.compile(r"\d[.,' ]\d")  # then it matters which of them stands before the decimals


class Answer(str):
    """An answer's key, and `raw`, the answer as it was written."""

    raw: str

    def __new__(cls, key: str, raw: str | None = None) -> Self:
        made = super().__new__(cls, key)
        made.raw = key if raw is None else raw
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (str(self), self.raw)


@functools.cache
def prepare() -> None:
    """Load the modules that read answers, so that the first text does not have to wait for them."""
    from tts_plugins.answers import _boxes, _find, _fold, _json_text, _keys, _markers, _numbers, _thoughts  # noqa: F401


def extract(text: str) -> Answer | None:
    r"""The normalised answer in `text`, which knows how it was written; None where there is none to be read.

    >>> extract(r"so we get \boxed{\frac{1}{2}}."), extract("The answer is 1,200.").raw
    ('0.5', '1,200')
    """
    from tts_plugins.answers import _find, _fold

    said = _fold.fold(without_thoughts(text))
    found = _find.find(said)
    if found is None:
        return None
    key = normalise(found.raw, _find.style_of(said, found) if _GROUPED.search(found.raw) else None)
    return Answer(key, found.raw.strip()) if key else None


def marked(text: str) -> bool:
    r"""Return whether an answer in it has a marker: `\boxed{…}`, or what follows `####`, `Answer:` or "answer is".

    A text that is one short line is an answer to `extract`, but no sign that a solution ends with it.
    """
    from tts_plugins.answers import _find, _fold, _markers

    said = _fold.fold(without_thoughts(text))
    return any(not each.doubtful for source in _find.certain(said, _markers.folded(said)) for each in source)


def normalise(answer: str, style: Literal["point", "comma"] | None = None) -> str:
    r"""The one form of an answer; idempotent.

    Args:
        answer: as it was written.
        style: whether a point or a comma stands before decimals, where that is known.

    >>> normalise(r"\dfrac{1}{2}"), normalise("$1,200.00"), normalise("The Eiffel Tower."), normalise(r"x \geq 5")
    ('0.5', '1200', 'eiffel tower', 'x>=5')
    """
    plain = answer.strip()
    if len(plain) < 15 and plain.isascii() and plain.isdecimal():
        return str(int(plain))  # most answers, without the detour through all other forms
    from tts_plugins.answers import _keys

    return _keys.normalise(answer, style)


def remembered(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return a pure function of a text with a memory of the last short texts that it read.

    Samples of one model repeat each other, the more the surer it is, and reading takes longer than looking up.
    """
    known = functools.lru_cache(maxsize=512)(read)

    def recall(text: str) -> _T:
        return known(str(text)) if len(text) <= _SHORT else read(text)  # a text's native object is not kept alive

    return recall


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces balance."""
    from tts_plugins.answers import _boxes

    return _boxes.boxed(text)


def without_thoughts(text: str) -> str:
    """Return the text outside of the thoughts; nothing if a thought was never closed.

    Read are `<think>` and its kin, `[THINK]`, Harmony's channels, and a thought whose opening tag stood in the
    prompt. A tag behind a quote or a backtick is only mentioned.

    >>> without_thoughts("<think>41?</think>42"), without_thoughts("<think>41"), without_thoughts("41?</think>42")
    ('42', '', '42')
    """
    said = _reader_of_thoughts()(text)
    return "" if said is None else said


def unfinished(text: str) -> bool:
    """Whether the text ends inside of a thought, so that there is no answer yet."""
    return _reader_of_thoughts()(text) is None


@functools.cache
def _reader_of_thoughts() -> Callable[[str], str | None]:
    from tts_plugins.answers import _thoughts

    return _thoughts.said


def read_json(text: str) -> Any:
    """The JSON value in a text: all of it, else the last fenced block that holds any, else the last object in prose.

    Thoughts are not looked at. Line ends of any kind will do.

    Raises:
        ValueError: there is none; NaN and Infinity are none either.

    >>> read_json('Here it is: {"a": 1}. Will it do?')
    {'a': 1}
    """
    from tts_plugins.answers import _json_text

    return _json_text.read_json(without_thoughts(text))


def without_reasons(value: Any) -> Any:
    """A JSON value without the members of objects that say how an answer was found, such as `reasoning`: what votes.

    >>> without_reasons({"reasoning": "17 and 25 make 42", "answer": 42})
    {'answer': 42}
    """
    from tts_plugins.answers import _json_text

    return _json_text.without_reasons(value)


def number_value(answer: str) -> Fraction | None:
    """The exact value of an answer that is a number; None for all others, percentages among them."""
    from tts_plugins.answers import _numbers

    return _numbers.value_of(normalise(answer))


def marker_pattern(kind: str) -> str:
    """A pattern for the words of a kind of `markers.txt` in all languages, in lower case, without borders."""
    from tts_plugins.answers import _markers

    return _markers.trie(_markers.languages_of(kind))


def equivalent(a: str, b: str) -> bool:
    """Whether two answers have the same key, or are the same number: what needs no formula to be understood.

    For equal formulas see `tts_plugins.verifiers.MathGroups`.
    """
    if normalise(a) == normalise(b):
        return True
    first, second = number_value(a), number_value(b)
    return first is not None and first == second
