"""A trace for a notebook: a compact table with styles of its own and no script."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tts_plugins._trace.markup import Html, badges, el, markup, pretty, said, score
from tts_plugins._trace.outline import View
from tts_plugins._trace.wording import (
    MARKS,
    Event,
    bounded,
    limits,
    money,
    number,
    oneline,
    plural,
    seconds,
    shorten,
    sureness,
)

MOST = 100  # rows; a notebook keeps its outputs in its file
LONGEST = 4000  # characters of one text


def fragment(trace: Mapping[str, Any]) -> str:
    """Return a piece of HTML for another page: the outcome of the trace, and a row for each candidate."""
    view = View(trace)
    top, usage = view.top, view.top.get("usage") or {}
    answer = top.get("answer")
    answer = f"({view.outcome})" if answer is None else oneline(answer)
    cost = [
        view.tally,
        plural(usage.get("calls", 0), "call") if usage else "",
        f"{bounded(usage, usage.get('tokens'))} tokens" if usage else "",
        money(usage),
        seconds(usage.get("seconds", view.seconds)),
        f"budget {allowed}" if (allowed := limits(top)) else "",
    ]
    setting = [oneline(top.get("strategy") or ""), f"ended: {view.why}", sureness(top)]
    if top.get("abstained"):
        answer = f"no answer (withheld: {answer})"
        setting.append(f"no answer: {oneline(top['abstained'])}")
    problem = oneline(top.get("problem") or "")
    head = [
        el("p", el("bdi", shorten(problem, 160)), class_="tts-trace-problem"),
        el("p", "→ ", el("b", el("bdi", shorten(answer, 200))), " ", score(number(top.get("score")))),
        el("p", el("bdi", " · ".join(shorten(text, 300) for text in setting if text)), class_="tts-trace-small"),
        el("p", " · ".join(filter(None, cost)), class_="tts-trace-small"),
    ]
    return el("div", Html(f"<style>{_style()}</style>"), head, _table(view), _losses(view), class_="tts-trace")


@cache
def _style() -> str:
    return files(__package__).joinpath("fragment.css").read_text("utf-8")


def _table(view: View) -> Html | None:
    if not view.candidates:
        return None
    ordered = sorted(view.candidates, key=lambda c: (view.mark(c) != "chosen", -(view.score(c) or 0.0)))
    head = el("thead", el("tr", [el("th", name, scope="col") for name in ("", "Candidate", "Score", "Answer", "Said")]))
    rows = [_row(view, c) for c in ordered[:MOST]]
    more = len(ordered) - len(rows)
    note = el("p", f"and {plural(more, 'more candidate')}, of lower scores", class_="tts-trace-small") if more else None
    return markup(el("table", head, el("tbody", rows)), note)


def _row(view: View, event: Event) -> Html:
    mark, text = view.mark(event), pretty(str(event.get("text") or ""))
    cut = el("pre", shorten(text, LONGEST), dir="auto")
    remark = event.get("error") if mark == "failed" else event.get("feedback") or ""
    return el(
        "tr",
        el("td", MARKS[mark]),
        el("td", f"#{event.get('index', '?')} {event.get('candidate') or ''}"),
        el("td", score(view.score(event))),
        el("td", el("details", el("summary", said(event, 80)), cut)),
        el("td", badges(view, event), " ", el("bdi", shorten(str(remark), 300))),
        class_=f"tts-trace-{mark}",
    )


def _losses(view: View) -> Html | None:
    failed = [n.event for n in view.all() if n.kind == "request" and view.mark(n.event) == "failed"]
    if not failed:
        return None
    rows = [el("li", el("bdi", shorten(str(e.get("error")), 300))) for e in failed[:10]]
    return el("details", el("summary", plural(len(failed), "failed request")), el("ul", rows))
