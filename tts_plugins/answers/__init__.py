r"""The answer inside a text, in a form in which equal answers compare equal.

`extract` takes off what the model thought, and finds the last statement of an answer, whatever its form and language:
`\boxed{…}`, `#### 42`, "The answer is 42", `Antwort: 42`, `## Answer` over a line, `<answer>`, a JSON object. A text
without any of these is its own answer where it is short. Remarks about an answer ("the answer is unique"), headings
and refusals are none. Where that does not fit, give your own function: `solve(..., answer=function)`.

Words of other languages go into `markers.txt`, one line each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Self

from tts_plugins.answers._boxes import boxed
from tts_plugins.answers._find import certain, find, style_of
from tts_plugins.answers._fold import fold
from tts_plugins.answers._json_text import read_json
from tts_plugins.answers._keys import normalise
from tts_plugins.answers._markers import folded
from tts_plugins.answers._thoughts import unfinished, without_thoughts

__all__ = [
    "Answer",
    "AnswerKey",
    "boxed",
    "equivalent",
    "extract",
    "marked",
    "normalise",
    "read_json",
    "unfinished",
    "without_thoughts",
]

AnswerKey = Callable[[str], str | None]

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


def extract(text: str) -> Answer | None:
    r"""The normalised answer in `text`, which knows how it was written; None where there is none to be read.

    >>> extract(r"so we get \boxed{\frac{1}{2}}."), extract("The answer is 1,200.").raw
    ('1/2', '1,200')
    """
    said = fold(without_thoughts(text))
    found = find(said)
    if found is None:
        return None
    key = normalise(found.raw, style_of(said, found) if _GROUPED.search(found.raw) else None)
    return Answer(key, found.raw.strip()) if key else None


def marked(text: str) -> bool:
    r"""Whether an answer stands in it with a marker: `\boxed{…}`, or what follows `####`, `Answer:` or "answer is".

    A text that is one short line is an answer to `extract`, but no sign that a solution ends with it.
    """
    said = fold(without_thoughts(text))
    return any(not each.doubtful for source in certain(said, folded(said)) for each in source)


def equivalent(a: str, b: str) -> bool:
    """Whether two answers mean the same, beyond `normalise` where it says "equal".

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
