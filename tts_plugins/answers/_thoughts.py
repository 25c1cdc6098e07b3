"""What a model thought before it answered, taken off: it is no part of its answer. Pure."""

from __future__ import annotations

import re

_NAMES = r"(?:seed:|antml:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|inner_monologue|analysis)"
_TAG = re.compile(
    rf"<(?P<a>/?){_NAMES}>|\[(?P<b>/?)THINK\]|<\|(?P<c>/?)think(?:ing)?\|>|<\|(?P<d>begin|end)_of_thought\|>"
    r"|◁(?P<e>/?)think▷|<unused9(?P<f>[45])>(?:thought\n)?|<\|(?P<g>START|END)_THINKING\|>",
    re.IGNORECASE,
)
_CLOSES = {"/", "end", "5"}
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_END = re.compile(r"<\|(?:end|return|start|call)\|>")
_WRAPPER = re.compile(r"<\|(?:begin|end)_of_solution\|>|<\|(?:START|END)_RESPONSE\|>")
# Harmony's channels, as they look where special tokens were not decoded.
_BARE_CHANNELS = re.compile(r"\A\s*analysis(?=[A-Z\"'(])")


def without_thoughts(text: str) -> str:
    """What stands outside of the thoughts in a text; nothing where a thought was never closed.

    Read are `<think>` and its kin, `[THINK]`, Harmony's channels, and a thought whose opening tag stood in the
    prompt. A tag behind a quote or a backtick is only mentioned.

    >>> without_thoughts("<think>41?</think>42"), without_thoughts("<think>41"), without_thoughts("41?</think>42")
    ('42', '', '42')
    """
    said = _said(text)
    return "" if said is None else said


def unfinished(text: str) -> bool:
    """Whether the text ends inside of a thought, so that there is no answer yet."""
    return _said(text) is None


def _said(text: str) -> str | None:
    """What stands outside of the thoughts; None where the last one is open."""
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE_CHANNELS.match(text):
        _, found, said = text.rpartition("assistantfinal")
        return said if found else None
    if not ("<" in text or "[" in text or "◁" in text):
        return text
    kept, at, depth, met = list[str](), 0, False, False
    for tag in _TAG.finditer(text):
        if text[max(0, tag.start() - 1) : tag.start()] in ("`", '"', "'"):
            continue
        closes = any(tag[name] is not None and tag[name].lower() in _CLOSES for name in "abcdefg")
        if not closes and not depth:
            kept.append(text[at : tag.start()])
            depth = True
        elif closes and not depth:
            if met and not text[tag.end() :].strip():  # one too many at the end closes nothing
                kept.append(text[at : tag.start()])
                at = tag.end()
                continue
            kept.clear()  # the template had opened it
        if closes:
            depth, met, at = False, True, tag.end()
    if depth:
        return None
    said = "".join([*kept, text[at:]]) if kept or at else text
    if met and not said.strip():
        return None
    return _WRAPPER.sub("", said) if "<|" in said else said


def _final_channel(text: str) -> str | None:
    final = None
    for match in _CHANNEL.finditer(text):
        if match[1] == "final":
            final = match
    if final is None:
        return None
    end = _END.search(text, final.end())
    return text[final.end() : end.start() if end else len(text)]
