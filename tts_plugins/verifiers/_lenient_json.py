"""JSON objects as language models really write them, where there is only one way to read them. Pure.

A decoder's own leniency goes first (line ends inside of texts). Then come repairs that cannot change what is meant: a
backslash is doubled where no escape follows, Chinese and curly punctuation outside of texts becomes JSON's, and
Python's words and single quotes are read by Python's own parser. Nothing is guessed: an object that is cut, a text with
a bare quote inside, and a member that stands twice are refused, since a candidate may have written them to be misread.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from tts_plugins._internal.json_bytes import finite, once, refuse_constant

_OPEN = re.compile(r"[{｛]\s*(?:[\"'“”„＂}｝]|[A-Za-z_]\w*\s*[:：])")
_QUOTED = re.compile(r"[{｛]\s*[\"'“”„＂]")
_CLOSE = re.compile(r"[}｝]")
_NEXT_LINE = re.compile(r"\n\s*(?=[{｛])")
_TRIES = 40  # objects that are looked at: each broken one may cost the rest of the text
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\', re.DOTALL)
_WIDE = str.maketrans("：，｛｝［］（）　", ":,{}[]() ")
_CURLY = str.maketrans("“”„‟＂", '"""""')
_BARE = re.compile(
    r"(?P<name>(?<=[{,\s])[A-Za-z_]\w*(?=\s*:))|(?P<share>\b\d+\s*/\s*\d+\b)|\b(?P<word>True|False|None)\b"
)
_TRAILING = re.compile(r",\s*(?=[}\]])")
_PYTHON = {"True": "true", "False": "false", "None": "null"}


@dataclass(frozen=True)
class Found:
    """Return the object in a text from `start` to `end`; None if it begins like one and cannot be read."""

    start: int
    end: int
    value: dict[str, Any] | None


def objects(text: str) -> list[Found]:
    """The outermost objects of a text, one after the other, and what looks like one and is broken."""
    found, at = list[Found](), 0
    while (start := _OPEN.search(text, at)) is not None:
        if len(found) == _TRIES:
            return [*found, Found(at, len(text), None)]
        found.append(_object(text, start.start()))
        at = found[-1].end
    return found


def _object(text: str, start: int) -> Found:
    try:
        value, end = _DECODER.raw_decode(text, start)
        return Found(start, end, value)
    except (ValueError, RecursionError):
        pass
    # Repaired is only what is whole: the shortest part that ends with a brace and is an object then.
    for end in [m.end() for m in _CLOSE.finditer(text, start)][:_TRIES]:
        part = text[start:end]
        for read in (_from_json, _from_python):
            if (made := read(part)) is not None:
                return Found(start, end, made)
    # Whatever follows may be a part of it: only a later object at the start of a line counts as another one. Braces
    # before a bare word are mostly a set.
    bare = not _QUOTED.match(text, start)
    following = (_OPEN if bare else _NEXT_LINE).search(text, start + 1)
    end = len(text) if following is None else following.start() if bare else following.end()
    return Found(start, end, None)


def _from_json(part: str) -> dict[str, Any] | None:
    for repair in (_escaped, _punctuated):
        made = repair(part)
        try:
            value, end = _DECODER.raw_decode(made)
        except (ValueError, RecursionError):
            continue
        if end == len(made):
            return dict(value)
    return None


def _escaped(text: str) -> str:
    """With a second backslash wherever one begins no escape: `\\(x\\)` in a critique."""
    return _ESCAPE.sub(lambda m: m[0] if len(m[0]) > 1 else r"\\", text)


def _punctuated(text: str) -> str:
    """With JSON's punctuation, names in quotes and JSON's words, everywhere outside of texts."""
    text = _escaped(text)
    if '"' not in text:
        text = text.translate(_CURLY)
    out, at = list[str](), 0
    for match in _STRING.finditer(text):
        out += [_outside(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*out, _outside(text[at:])])


def _outside(text: str) -> str:
    plain = _BARE.sub(_quoted, text.translate(_WIDE))
    return _TRAILING.sub("", plain)


def _quoted(match: re.Match[str]) -> str:
    return _PYTHON[match["word"]] if match["word"] else f'"{match[0]}"'


def _from_python(part: str) -> dict[str, Any] | None:
    """A dict as Python writes it, with single quotes; none with a comment, since what that hides is not seen."""
    if not part.lstrip("{ \n\t").startswith("'") or "#" in part:
        return None
    try:
        value = _literal(ast.parse(part.strip(), mode="eval").body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict):
        pairs = [(k.value if isinstance(k, ast.Constant) else None, _literal(v)) for k, v in
                 zip(node.keys, node.values, strict=True)]  # fmt: skip
        if not all(isinstance(name, str) for name, _ in pairs):
            raise ValueError("a member has no name")
        return once([(str(name), value) for name, value in pairs])
    if isinstance(node, ast.List):
        return [_literal(part) for part in node.elts]
    value = ast.literal_eval(node)
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("it is not JSON")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=once, parse_constant=refuse_constant, parse_float=finite, strict=False)
