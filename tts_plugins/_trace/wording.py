"""Figures and words as a trace's renderings write them. Pure: values in, text out."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tts_plugins._internal.values import is_number

Event = Mapping[str, Any]
Mark = Literal["chosen", "failed", "out_of_budget", "cancelled", "pruned", "running", "plain"]

STOPPED = {
    "complete": "complete: nothing was left to do",
    "stop_rule": "its stop rule was met",
    "budget": "the budget had no room for more",
    "deadline": "the time was up",
    "cancelled": "it was cancelled",
    "error": "of an error that no further candidate could escape",
    "failed": "it failed",
    "running": "it is still running",
}

MARKS: Mapping[str, str] = {
    "chosen": "★", "failed": "✗", "out_of_budget": "–", "cancelled": "–", "pruned": "▽", "running": "…", "plain": "•",
}  # fmt: skip

TALLIED: Mapping[str, str] = {
    "pruned": "pruned", "failed": "failed", "out_of_budget": "out of budget", "cancelled": "cancelled",
    "running": "running",
}  # fmt: skip

NOTES = {
    "stop": "stop rule met",
    "budget": "no room left in the budget",
    "deadline": "the deadline passed",
    "cancelled": "cancelled",
    "overshoot": "charged more than was reserved",
    "straggler": "too slow for its level, which went on without it",
    "shortage": "this machine had no thread, descriptor or memory for it",
    "doubt": "the choice is doubtful",
    "circles": "this chain repeats itself, and ends",
    "steps": "how single steps are requested",
    "top_up": "fewer choices than asked for; the rest is asked again",
    "escalated": "not sure enough, so more was asked",
    "escalation_failed": "the escalation failed",
    "rung_failed": "all of its samples failed, so another model was asked",
}

# What hides or reorders text, or drives a terminal: controls, bidirectional and invisible marks, lone surrogates.
# The joiners U+200C and U+200D are left alone, since Persian and emoji need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)


def visible(text: object) -> str:
    """The text with everything that hides, reorders or controls made to be seen; it can always be encoded."""
    return _HIDDEN.sub(lambda match: f"‹U+{ord(match[0]):04X}›", str(text).replace("\r\n", "\n"))


def capital(text: str) -> str:
    """The text with a capital to begin with."""
    return text[:1].upper() + text[1:]


def oneline(text: object) -> str:
    """Visible text in one line."""
    return " ".join(visible(text).split())


def shorten(text: str, width: int) -> str:
    """At most `width` characters, the last of them an ellipsis where some were left out."""
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + "…"


def number(value: object) -> float | None:
    """A finite number, or None for whatever else it is."""
    if not is_number(value):
        return None
    return float(value)


def plural(count: float, noun: str) -> str:
    """`1 call`, `1,200 calls`."""
    return f"{count:,.0f} {noun}" + ("" if count == 1 else "s")


def seconds(value: object) -> str:
    """A time to a useful precision; a question mark where there is none."""
    given = number(value)
    return (
        "?" if given is None else f"{given * 1000:.1f} ms" if given < 0.01 else f"{given:.{1 if given >= 10 else 2}f} s"
    )


def duration(event: Event) -> float | None:
    """How long an event took; None while it runs."""
    start, end = number(event.get("at")), number(event.get("end"))
    return None if start is None or end is None else max(end - start, 0.0)


def money(usage: Event) -> str:
    """Dollars to two significant figures at least; empty where they are unknown or none."""
    usd = number(usage.get("usd"))
    return "" if not usd else f"${usd:.2f}" if usd >= 1 else f"${usd:.{1 - math.floor(math.log10(abs(usd)))}f}"


def bounded(usage: Event, count: object) -> str:
    """A count, marked as a bound where the usage is not exact."""
    return ("≤" if usage.get("exact") is False else "") + f"{number(count) or 0:,.0f}"


def limits(top: Event) -> str:
    """The budget of a solve in words, and whether other solves share it; empty where there is none."""
    budget = top.get("budget")
    if not isinstance(budget, Mapping):
        return ""
    said = {"usd": lambda v: f"${v:g}", "seconds": lambda v: f"{v:g} s"}
    words = ", ".join(said[k](v) if k in said else f"{v:,} {k}" for k, v in budget.items() if number(v) is not None)
    return words + (" (shared)" if words and top.get("shared") else "")


def charged(usage: object) -> str:
    """What a failed attempt was charged; empty where nothing is known, or it cost nothing."""
    if not isinstance(usage, Mapping):
        return ""
    calls, tokens = number(usage.get("calls")) or 0, number(usage.get("tokens")) or 0
    parts = [plural(calls, "call") if calls else "", f"{bounded(usage, tokens)} tokens" if tokens else "", money(usage)]
    said = ", ".join(filter(None, parts))
    return f"charged {said}" if said else ""


def sureness(top: Event) -> str:
    """How sure a solve is of its choice, in words; empty where nothing is known."""
    both = [(name, number(top.get(name))) for name in ("confidence", "agreement")]
    said = ", ".join(f"{name} {value:.2f}" for name, value in both if value is not None)
    return " ".join(filter(None, [said, "(by the escalation)" if top.get("escalated") else ""]))


def escalation_words(note: Event) -> str:
    """Why a question went further, and where to."""
    confidence, below = number(note.get("confidence")), number(note.get("below"))
    known = "unknown" if confidence is None else f"{confidence:.2f}"
    least = "" if below is None else f", below {below:g}"
    return f"confidence {known}{least}; to {oneline(note.get('to'))}"


def stop_words(note: Event) -> str:
    """What a stop rule saw when it stopped."""
    seen, left = number(note.get("seen")), number(note.get("left"))
    counts = "" if seen is None else f" after {plural(seen, 'candidate')}"
    return oneline(note.get("rule")) + counts + ("" if left is None else f", {left:.0f} more possible")


CUT_SHORT = ("max_steps", "search_ended", "escalation_failed", "rung_failed", "shortage", "doubt")


def cut_short(events: Iterable[Event]) -> tuple[str, ...]:
    """What cut a search short besides what its `stopped` says, and what makes its choice doubtful: each once.

    Events of other kinds say nothing of it.
    """
    said: dict[str, None] = {}
    failed: Counter[str] = Counter()
    for event in events:
        if event.get("kind") == "shortage":
            failed[oneline(event.get("error"))] += 1
        elif event.get("kind") == "max_steps":
            left = number(event.get("unfinished", 1))
            said[f"max_steps={event.get('steps')} ended it before {plural(left or 1, 'candidate')} had an end"] = None
        elif event.get("kind") == "doubt":
            said[oneline(event.get("said"))] = None
        elif event.get("kind") == "rung_failed":
            said[f"another model was asked, since the one before failed: {oneline(event.get('error'))}"] = None
        elif event.get("kind") in _ENDED and not str(event.get("error")).startswith(_SHOWN_BY_STOPPED):
            said[f"it went no further: {oneline(event.get('error'))}"] = None
    said |= dict.fromkeys(
        f"{plural(n, 'candidate')} failed, since this machine lacks something: {x}" for x, n in failed.items()
    )
    return tuple(said)


_ENDED = ("search_ended", "escalation_failed")
_SHOWN_BY_STOPPED = ("BudgetExhausted", "DeadlineExceeded", "SolveCancelled")


def numbers(values: object) -> list[float]:
    """The finite numbers of a sequence; none of anything else."""
    given = values if isinstance(values, Sequence) and not isinstance(values, str | bytes) else ()
    return [value for value in map(number, given) if value is not None]


def rest(event: Event, *known: str) -> str:
    """Return every field that is not shown elsewhere, for kinds and fields that are not known here."""
    skipped = {"id", "kind", "parent", "at", "end", *known}
    return ", ".join(f"{oneline(k)}={oneline(v)}" for k, v in event.items() if k not in skipped and v not in (None, ""))


def columns(text: str) -> int:
    """Columns in a terminal: East Asian characters and emoji take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, room: int) -> str:
    """At most `room` columns, the last of them an ellipsis where something was left out."""
    if columns(text) <= room:
        return text
    kept = text[: max(room - 1, 0)]
    while columns(kept) > room - 1 and kept:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def wrap(text: str, room: int, most: int) -> list[str]:
    """At most `most` lines of `room` columns."""
    lines: list[str] = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if columns(joined) <= room or not lines[-1]:
            lines[-1] = joined
        elif len(lines) == most:
            lines[-1] += " …"
            break
        else:
            lines.append(word)
    return [fit(line.replace("\xa0", " "), room) for line in lines]
