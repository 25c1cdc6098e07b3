"""Markup that cannot be escaped from: every text becomes safe where it is put into an element."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tts_plugins._trace.outline import View
from tts_plugins._trace.wording import number, visible

_VOID = {"input", "meta"}
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[^\s"\[\]{},:]+|[\[\]{},:]')
_OPEN, _CLOSE = ("{", "["), ("}", "]")


class Html(str):
    """Markup that is safe already."""

    __slots__ = ()


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """An element; texts are escaped, markup and lists of it are not. `class_` is `class`, `a_b` is `a-b`."""
    parts = [name]
    for key, value in attributes.items():
        if value is True:
            parts.append(key.rstrip("_").replace("_", "-"))
        elif value is not None and value is not False:
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(visible(value))}"')
    # A parser drops the first line break of a <pre>: one more keeps that of the text.
    inner = ("\n" if name == "pre" else "") + markup(*children)
    return Html(f"<{' '.join(parts)}>{inner}" + ("" if name in _VOID else f"</{name}>"))


def markup(*children: object) -> Html:
    """Children as markup; None and False are left out."""
    out: list[str] = []
    for child in children:
        if isinstance(child, Html):
            out.append(child)
        elif isinstance(child, list | tuple):
            out.append(markup(*child))
        elif child is not None and child is not False:
            out.append(html.escape(visible(child)))
    return Html("".join(out))


def data_block(trace: Mapping[str, Any], name: str) -> Html:
    """The trace itself, as JSON that no parser mistakes for markup and no reader for anything else."""
    text = json.dumps(_plain(trace), ensure_ascii=True, allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


def _plain(value: object) -> object:
    """What JSON can hold: a future event may carry anything, and a page of what is left beats none."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return value if number(value) is not None else str(value)


def pretty(text: str) -> str:
    """JSON on one line, laid out; anything else as it is. Only white space changes: no key, digit or escape does."""
    stripped = text.strip()
    if not stripped.startswith(_OPEN) or "\n" in stripped:
        return text
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        return text
    return _lay_out(stripped)


def _lay_out(text: str) -> str:
    tokens = _TOKEN.findall(text)
    out: list[str] = []
    depth = i = 0
    while i < len(tokens):
        token = tokens[i]
        if token in _OPEN and (end := _leaf(tokens, i)):
            out.append("".join({",": ", ", ":": ": "}.get(t, t) for t in tokens[i:end]))
            i = end
            continue
        depth += (token in _OPEN) - (token in _CLOSE)
        line = "\n" + "  " * min(depth, 20)
        before, after = line if token in _CLOSE else "", line if token in _OPEN or token == "," else ""
        out.append(before + (": " if token == ":" else token) + after)
        i += 1
    return "".join(out)


def _leaf(tokens: Sequence[str], start: int) -> int:
    """Where a short list or object that holds no other ends; 0 if it is not one."""
    size = 0
    for i in range(start + 1, len(tokens)):
        size += len(tokens[i])
        if tokens[i] in _OPEN or size > 72:
            return 0
        if tokens[i] in _CLOSE:
            return i + 1
    return 0


def score(value: float | None) -> Html | None:
    """A number and a bar that says the same at a glance."""
    if value is None:
        return None
    share = f"{min(max(value, 0.0), 1.0):.1%}"
    bar = el(
        "svg",
        el("rect", class_="ground", width="100%", height="100%", rx="3"),
        el("rect", class_="filled", width=share, height="100%", rx="3"),
        class_="bar", aria_hidden="true", width="48", height="8",
    )  # fmt: skip
    return el("span", bar, el("b", f"{value:.2f}"), class_="score")


def badges(view: View, event: Mapping[str, Any]) -> list[Html]:
    """What became of a candidate, in words."""
    mark = view.mark(event)
    words: list[str] = [mark] if mark != "plain" else []
    if event.get("finish_reason") == "length" or event.get("truncated"):
        words.append("truncated")
    return [el("span", word, class_=f"badge {word}") for word in words]


def said(event: Mapping[str, Any], width: int) -> Html:
    """A candidate's answer, or the first words of one that has none; set apart from the direction of what is around."""
    text = event.get("answer")
    if text is None:
        text = event.get("text") or ""
    line = " ".join(visible(text).split())
    line = line if len(line) <= width else line[: width - 1] + "…"
    return el("bdi", line, class_="said" if event.get("answer") is not None else "said words")
