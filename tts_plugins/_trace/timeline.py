"""When what was running: a bar for each request and each verification, so that concurrency is seen at a glance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tts_plugins._trace.markup import Html, el
from tts_plugins._trace.outline import Node, View
from tts_plugins._trace.wording import MARKS, TALLIED, Event, duration, number, oneline, plural, seconds

ROOMY = 60  # rows with labels; more of them become thin
MOST = 600

_LINES = {"stop": "stop rule", "budget": "budget", "deadline": "deadline", "cancelled": "cancelled"}


@dataclass
class Row:
    """A label, and the bars on one line: what kind each is, and its event."""

    label: str
    mark: str = "plain"
    bars: list[tuple[str, Event]] = field(default_factory=list)


def timeline(view: View) -> Html | None:
    """The figure; None where nothing took any time."""
    rows = [row for node in view.nodes for row in _rows(view, node)]
    if not rows or not view.seconds:
        return None
    lines = [n.event for n in view.nodes if n.kind in _LINES]
    drawn = [el("li", _label(row), _bars(view, row, lines)) for row in rows[:MOST]]
    if len(rows) > MOST:
        drawn.append(el("li", f"and {len(rows) - MOST} more", class_="more"))
    legend = [
        el("span", el("i", class_=f"key {name}"), text, class_="legend")
        for name, text in (("model", "generation"), ("verifier", "verification"), ("failed", "failed"),
                           ("cancelled", "cancelled"), ("event", "end of the search"))
    ]  # fmt: skip
    waited = f" Nothing was asked in the first {seconds(view.begun)}, which are left out." if view.begun else ""
    caption = el("figcaption", f"{plural(len(rows), 'line')} over {seconds(view.seconds)}.{waited} ", legend)
    size = "timeline" if len(rows) <= ROOMY else "timeline dense"
    return el(
        "figure",
        el("ol", drawn, el("li", el("span", class_="label"), _axis(view), class_="axis"), class_=size),
        caption,
    )


def _rows(view: View, node: Node) -> Iterator[Row]:
    event = node.event
    if node.kind == "request":
        yield from _request_rows(view, node)
        return
    if node.kind == "candidate":
        yield _with_check(view, Row(_name(view, event), view.mark(event)), node)
        return
    if node.kind != "wave" and (duration(event) or node.kind == "score_set"):
        role = "verifier" if node.kind == "score_set" else "other"
        yield Row(oneline(node.kind).replace("_", " "), view.mark(event), [(role, event)])
    for child in node.children:
        yield from _rows(view, child)


def _request_rows(view: View, node: Node) -> Iterator[Row]:
    event, candidates, mark = node.event, node.of("candidate"), view.mark(node.event)
    role = "verifier" if event.get("role") == "verifier" else "model"
    bars = [(role if mark in ("plain", "running") else mark, event)]
    bars += [("failure", child.event) for child in node.of("failure")]
    if len(candidates) == 1:
        only = candidates[0]
        yield _with_check(view, Row(_name(view, only.event), view.mark(only.event), bars), only)
        return
    count = number(event.get("n")) or 1
    label = f"×{count:.0f}" if count > 1 else role if mark in ("plain", "running") else TALLIED.get(mark, mark)
    yield Row(label, mark, bars)
    for candidate in candidates:
        yield _with_check(view, Row(_name(view, candidate.event), view.mark(candidate.event)), candidate)


def _with_check(view: View, row: Row, candidate: Node) -> Row:
    if view.top.get("verifier") is not None or candidate.children:
        mark = view.mark(candidate.event)
        row.bars.append((mark if mark in ("failed", "cancelled") else "verifier", candidate.event))
    return row


def _name(view: View, event: Event) -> str:
    return f"#{oneline(event.get('index', '?'))}"


def _label(row: Row) -> Html:
    mark = MARKS.get(row.mark, "")
    return el(
        "span", el("span", mark if row.mark != "plain" else "", class_="mark"), row.label, class_=f"label {row.mark}"
    )


def _bars(view: View, row: Row, lines: list[Event]) -> Html:
    drawn = [
        el("line", class_="event", x1=_x(view, e.get("at")), x2=_x(view, e.get("at")), y1="0", y2="100%") for e in lines
    ]
    for kind, event in row.bars:
        took = duration(event)
        title = el(
            "title",
            f"{_what(event)}: {seconds(took) if took is not None else 'running'} from {seconds(event.get('at'))}",
        )
        if kind == "failure":
            rect = el("rect", title, class_="failure", x=_x(view, event.get("at")), width="3", height="100%")
        else:
            end = view.seconds if took is None else number(event.get("end"))
            shown = view.seconds - view.begun
            width = max((end or 0.0) - max(number(event.get("at")) or 0.0, view.begun), shown / 300)
            rect = el(
                "rect", title, class_=kind, x=_x(view, event.get("at")), y="15%", height="70%", rx="2",
                width=f"{width / shown:.2%}",
            )  # fmt: skip
        drawn.append(rect)
    return el("svg", drawn, class_="bars", role="img", aria_label=_spoken(view, row))


def _what(event: Event) -> str:
    if event.get("kind") == "request":
        return f"{oneline(event.get('role'))} request to {oneline(event.get('model'))}"
    if event.get("kind") == "candidate":
        return f"verification of {oneline(event.get('candidate'))}"
    return oneline(event.get("error") or event.get("verifier") or event.get("kind"))


def _spoken(view: View, row: Row) -> str:
    spans = (f"{_what(e)} from {view.moment(e.get('at'))} to {view.moment(e.get('end'))}" for _, e in row.bars)
    return f"{row.label}: " + "; ".join(spans)


def _x(view: View, at: object) -> str:
    return f"{max((number(at) or 0.0) - view.begun, 0.0) / (view.seconds - view.begun):.2%}"


def _axis(view: View) -> Html:
    shown = view.seconds - view.begun
    step = 10 ** math.floor(math.log10(shown / 2))
    step *= next(m for m in (1, 2, 5, 10) if shown / (step * m) <= 5)
    first = math.ceil(view.begun / step)
    ticks = [i * step for i in range(first, int((view.begun + shown * 0.97) / step) + 1)]
    texts = [
        el("text", f"{t:.6g} s", x=_x(view, t), y="12", text_anchor="middle" if t > view.begun else "start")
        for t in ticks
    ]
    return el("svg", texts, class_="bars", aria_hidden="true")
