"""Traces to look at: a tree of text for a terminal, a page of HTML, a piece of HTML for a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tts_plugins._trace.notebook import fragment
from tts_plugins._trace.outline import Node, View
from tts_plugins._trace.page import page, pages
from tts_plugins._trace.wording import (
    MARKS,
    NOTES,
    TALLIED,
    Event,
    Mark,
    bounded,
    charged,
    columns,
    duration,
    escalation_words,
    fit,
    limits,
    money,
    number,
    numbers,
    oneline,
    plural,
    rest,
    seconds,
    stop_words,
    sureness,
    wrap,
)

__all__ = ["fragment", "page", "pages", "tree"]

WIDTH = 110
MANY = 40  # candidates that are all shown
FOLDED = 18  # of more than that, about so many are shown: each level shows its share
_ENDS = {"budget", "deadline", "cancelled", "overshoot", "straggler", "top_up", "escalation_failed", "rung_failed"}


def tree(trace: Mapping[str, Any]) -> str:
    """The trace as text of at most 110 columns without colours: what came of it, then call by call.

    Long lists show their first and last entries, the chosen candidate and the first losses; the rest is counted.
    """
    view = View(trace)
    lines = _heading(view)
    share = MANY if len(view.candidates) <= MANY else max(4, FOLDED // max(len(view.waves), 1))
    _branches(lines, view.nodes, "", lambda node, room: _entry(view, node, room), view, share)
    if lineage := view.lineage:
        lines += ["", "by descent: each candidate beneath the one that it continues"]
        _branches(lines, lineage, "", lambda node, room: _candidate(view, node, room, brief=True), view, share)
    return "\n".join(lines)


def _heading(view: View) -> list[str]:
    top, usage = view.top, view.top.get("usage") or {}
    score = number(top.get("score"))
    ending = "" if score is None else f"  {_score(score)}"
    answer = oneline(top["answer"]) if top.get("answer") is not None else _first_words(view)
    answer = f"no answer (withheld: {answer})" if top.get("abstained") else answer
    problem, room = oneline(top.get("problem") or "(no solve in this trace)"), WIDTH - 3 - columns(ending)
    problem = fit(problem, max(room // 2, room - columns(answer)))
    roles = usage.get("by_role") or {}
    by_role = ", ".join(f"{oneline(role)} {u.get('calls', 0):,}" for role, u in roles.items())
    cost = [
        plural(usage.get("calls", 0), "call") + (f" ({by_role})" if len(roles) > 1 else ""),
        f"{bounded(usage, usage.get('tokens'))} tokens",
        money(usage),
        seconds(usage.get("seconds")),
        f"OVERSHOOT {plural(usage['overshoot'], 'token')}" if usage.get("overshoot") else "",
    ]
    allowed = limits(top)
    said = [f"{name} {oneline(top[key])}" for name, key in _SETTINGS if top.get(key) is not None]
    paragraphs = [
        _glued([oneline(top.get("strategy") or "no strategy"), *said]),
        _glued([f"ended: {view.why}", sureness(top)]),
        *([f"no answer: {oneline(top['abstained'])}"] if top.get("abstained") else []),
        _glued(
            [
                *view.tally.split(", "),
                *(cost if usage else [f"{seconds(view.seconds)} so far"]),
                f"budget {allowed}" if allowed else "",
            ]
        ),
    ]
    first = f"{problem} → {fit(answer, room - columns(problem))}{ending}"
    return [first, *("  " + line for text in paragraphs for line in wrap(text, WIDTH - 2, 3))]


_SETTINGS = (("model", "model"), ("verifier", "verifier"), ("seed", "seed"))


def _first_words(view: View) -> str:
    chosen = next((c for c in view.candidates if view.mark(c) == "chosen"), None)
    if chosen is None:
        return f"nothing ({view.outcome})" if view.outcome != "running" else "…"
    return f"“{oneline(chosen.get('text'))}”"


def _branches(
    lines: list[str], nodes: Sequence[Node], prefix: str, say: Callable[[Node, int], list[str]], view: View, share: int
) -> None:
    """Draw the nodes beneath each other, folding what is too many."""
    entries = _folded(view, nodes, share)
    for i, entry in enumerate(entries):
        last = i == len(entries) - 1
        branch, below = prefix + ("└─ " if last else "├─ "), prefix + ("   " if last else "│  ")
        if isinstance(entry, list):
            lines.append(f"{prefix}{'└' if last else '├'}┄ {_summary(view, entry)}")
            continue
        head, *details = say(entry, WIDTH - len(branch))
        lines.append(branch + fit(head, WIDTH - len(branch)))
        bar = below + ("│  " if entry.children else "   ")
        for detail in details:
            lines += [bar + line for line in wrap(detail, WIDTH - len(bar), 4)]
        _branches(lines, entry.children, below, say, view, share)


def _folded(view: View, nodes: Sequence[Node], share: int) -> list[Node | list[Node]]:
    """The nodes, with runs of those that are left out as lists."""
    out: list[Node | list[Node]] = []
    losses = 0
    for i, node in enumerate(nodes):
        known = node.kind in ("request", "candidate")
        marks = {view.mark(n.event) for n in node.walk() if n.kind in ("request", "candidate")}
        losses += "failed" in marks
        shown = len(nodes) <= share or not known or i < share * 2 // 3 or i >= len(nodes) - share // 3
        if shown or "chosen" in marks or ("failed" in marks and losses <= 3):
            out.append(node)
        elif out and isinstance(out[-1], list):
            out[-1].append(node)
        else:
            out.append([node])
    return out


_COUNTED: tuple[Mark, ...] = ("failed", "out_of_budget", "cancelled", "pruned")


def _summary(view: View, nodes: Sequence[Node]) -> str:
    inside = [n for node in nodes for n in node.walk()]
    scores = [s for n in inside if n.kind == "candidate" if (s := view.score(n.event)) is not None]
    marks = [view.mark(node.event) for node in inside if node.kind in ("request", "candidate")]
    said = [f"{len(nodes)} more", plural(sum(n.kind == "candidate" for n in inside), "candidate")]
    said += [f"scores {min(scores):.2f} to {max(scores):.2f}"] if scores else []
    return " · ".join(said + [f"{marks.count(m)} {TALLIED[m]}" for m in _COUNTED if m in marks])


def _entry(view: View, node: Node, room: int) -> list[str]:
    """What is said of an event: a line, and paragraphs beneath it."""
    event, kind, at = node.event, node.kind, f"at {view.moment(node.event.get('at'))}"
    if kind == "candidate":
        return _candidate(view, node, room)
    if kind == "request":
        return _request(view, node)
    if kind == "wave":
        head = f"wave {view.waves[id(event)]}: {event.get('n')} of {event.get('of')} · {_timing(view, event)}"
    elif kind == "score_set":
        head = f"scored together by {oneline(event.get('verifier'))} · {event.get('n')} candidates"
        head += f" · {_timing(view, event)}"
    elif kind == "stop":
        head = f"■ {NOTES[kind]} {at}: {stop_words(event)}"
    elif kind == "escalated":
        head = f"■ {NOTES[kind]} {at}: {escalation_words(event)}"
    elif kind == "failure":
        final = "" if event.get("retryable") else ", not retryable"
        cost = f" · {paid}" if (paid := charged(event.get("usage"))) else ""
        return _paragraphs(f"✗ attempt {node.attempt}, {at}{final}{cost}: {oneline(event.get('error'))}", room)
    elif kind in _ENDS:
        said = oneline(event["error"]) if event.get("error") else rest(event)
        head = f"■ {NOTES[kind]} {at}" + (f": {said}" if said else "")
        return _paragraphs(head, room)
    else:
        return _paragraphs(f"{oneline(kind) or 'event'} · {_timing(view, event)} · {rest(event)}".rstrip(" ·"), room)
    return [head, f"✗ {oneline(event['error'])}"] if event.get("error") else [head]


def _request(view: View, node: Node) -> list[str]:
    event, failures, mark = node.event, node.of("failure"), view.mark(node.event)
    usage, seeds = event.get("usage") or {}, event.get("seeds") or []
    tries = len(failures) + (mark != "failed" or not failures)
    said = [
        ("" if mark == "plain" else MARKS[mark] + " ") + oneline(event.get("model")),
        "verifier" if event.get("role") == "verifier" else "",
        f"×{event['n']}" if event.get("n") not in (None, 1) else "",
        f"{bounded(usage, usage.get('tokens'))} tokens" if usage else "",
        money(usage),
        _timing(view, event),
        plural(tries, "attempt") if tries > 1 else "",
        {"failed": "failed", "out_of_budget": "(out of budget)", "cancelled": "(cancelled)"}.get(mark, ""),
        f"seed {oneline(seeds[0])}" + (" …" if len(seeds) > 1 else "")
        if event.get("role") != "verifier" and seeds
        else "",
    ]
    shown_beneath = mark != "failed" or any(f.event.get("error") == event.get("error") for f in failures)
    return [" · ".join(filter(None, said)), *([] if shown_beneath else [f"✗ {oneline(event['error'])}"])]


def _candidate(view: View, node: Node, room: int, brief: bool = False) -> list[str]:
    event, mark, score = node.event, view.mark(node.event), view.score(node.event)
    wide = max((len(str(c.get("index"))) for c in view.candidates), default=1) + 1
    name = f"{MARKS[mark]} {'#' + str(event.get('index', '?')):<{wide}} {oneline(event.get('candidate'))}"
    parent = f" ← {oneline(event['parent_candidate'])}" if event.get("parent_candidate") and not brief else ""
    words = {"cancelled": "(cancelled)", "pruned": "(pruned)", "running": "(running)"}.get(mark, "")
    words += "(truncated)" if event.get("finish_reason") == "length" or event.get("truncated") else ""
    head = "  ".join(filter(None, [name + parent, "" if score is None else _score(score), words]))
    said = f"= {oneline(event['answer'])}" if event.get("answer") is not None else f"“{oneline(event.get('text'))}”"
    steps = " ".join(f"{s:.2f}" for s in numbers(event.get("step_scores")))
    if brief:
        return [f"{head}  {said}" + (f"  steps {steps}" if steps else "")]
    tail = f"✗ {oneline(event['error'])}" if mark == "failed" else oneline(event.get("feedback") or "")
    space, beside = room - columns(head) - 2, bool(tail) and columns(tail) <= room // 3
    said = fit(said, space - columns(tail) - 3 if beside else space)
    first = f"{head}  {said}" + (f" · {tail}" if beside else "")
    return [first, *filter(None, ["" if beside else tail, f"steps {steps}" if steps else "", _unknown(event)])]


def _unknown(event: Event) -> str:
    known = ("candidate", "index", "text", "finish_reason", "truncated", "answer", "score", "feedback", "error")
    return rest(event, *known, "seed", "tokens", "pruned", "step_scores", "parent_candidate")


def _timing(view: View, event: Event) -> str:
    took = duration(event)
    return f"{'running' if took is None else seconds(took)} from {view.moment(event.get('at'))}"


def _score(score: float) -> str:
    full = round(min(max(score, 0.0), 1.0) * 5)
    return f"{score:.2f} " + "█" * full + "░" * (5 - full)


def _glued(parts: Sequence[str]) -> str:
    """Parts that a line break keeps whole."""
    return " · ".join(part.replace(" ", "\xa0") if len(part) < 50 else part for part in parts if part)


def _paragraphs(text: str, room: int) -> list[str]:
    return wrap(text, room - 3, 4)
