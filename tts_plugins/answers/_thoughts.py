"""What a model thought before it answered, taken off: it is not part of its answer. Pure."""

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


_TURN = re.compile(r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text)\|>|<(?:end|start)_of_turn>")


def said(text: str) -> str | None:
    """Return the text outside of the thoughts; None if the last one is open. A next turn is not the model's."""
    if "<" in text and (end := _TURN.search(text)) and text[: end.start()].strip():
        text = text[: end.start()]
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE_CHANNELS.match(text):
        _, found, rest = text.rpartition("assistantfinal")
        return rest if found else None
    if not ("<" in text or "[" in text or "◁" in text):
        return text
    kept, at, depth, met = list[str](), 0, False, False
    for tag in _TAG.finditer(text):
        before = text[max(0, tag.start() - 2) : tag.start()]
        if before[-1:] in ("`", '"', "'") and before != "``" and text.startswith(before[-1], tag.end()):
            continue  # it is only mentioned
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
    rest = "".join([*kept, text[at:]]) if kept or at else text
    if met and not rest.strip():
        return None
    return _WRAPPER.sub("", rest) if "<|" in rest else rest


def _final_channel(text: str) -> str | None:
    final = None
    for match in _CHANNEL.finditer(text):
        if match[1] == "final":
            final = match
    if final is None:
        return None
    end = _END.search(text, final.end())
    return text[final.end() : end.start() if end else len(text)]
