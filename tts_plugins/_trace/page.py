"""Traces as one HTML file that needs nothing else: no network, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from tts_plugins._trace.call_tree import calls
from tts_plugins._trace.markup import Html, data_block, el, markup, pretty, said, score
from tts_plugins._trace.outline import View
from tts_plugins._trace.timeline import timeline
from tts_plugins._trace.wording import (
    STOPPED,
    bounded,
    limits,
    money,
    number,
    oneline,
    plural,
    seconds,
    shorten,
    sureness,
    visible,
)

_LABELS = {"stop_rule": "stop rule"}
_MOST_ANSWERS = 8


def page(trace: Mapping[str, Any]) -> str:
    """One trace as a self-contained HTML page."""
    view = View(trace)
    name = shorten(oneline(view.top.get("problem") or "trace"), 70)
    return document(f"{name} · trace", [el("main", el("h1", "Trace of one solve"), _trace(view, ""))])


def pages(traces: Sequence[tuple[str, Mapping[str, Any]]], title: str, note: str = "") -> str:
    """Many traces in one self-contained page: a table that links to them, and a filter by how they ended.

    Args:
        traces: a title and `Trace.to_dict()` for each.
        title: of the page.
        note: a paragraph beneath the title.
    """
    views = [(name, View(trace)) for name, trace in traces]
    counts = Counter(view.outcome for _, view in views)
    numbered = {outcome: i for i, outcome in enumerate(counts)}
    sections = []
    for i, (name, view) in enumerate(views):
        body = el("div", _trace(view, f"t{i}-"), id=f"t{i}")
        head = el("summary", el("h2", name), " ", _outcome(view), " ", score(number(view.top.get("score"))))
        sections.append(el("details", head, body, class_=f"one o{numbered[view.outcome]}"))
    content = [
        el("h1", title),
        [el("p", part) for part in note.split("\n\n") if part.strip()],
        _filter(counts, numbered, len(views)),
        _summary(views, numbered),
        el("h2", "Traces", id="traces"),
        sections,
    ]
    rules = "".join(
        f"#f{i}:checked~.one:not(.o{i}),#f{i}:checked~.scroll tr.row:not(.o{i}){{display:none}}"
        for i in numbered.values()
    )
    return document(title, [el("main", content)], rules)


def document(title: str, body: list[Html], rules: str = "") -> str:
    """A whole page in the house's style, with further style rules; its policy lets it load nothing."""
    style, script = _resource("page.css") + rules, _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", oneline(title)),
        Html(f"<style>{style}</style>"),
    )
    return (
        "<!doctype html>\n" + el("html", head, el("body", body, Html(f"<script>{script}</script>")), lang="en") + "\n"
    )


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def article(view: View, prefix: str = "", *, listed: bool = True) -> Html:
    """Return one trace as HTML, for a page that has the styles.

    Args:
        prefix: of the names that links lead to.
        listed: whether all calls and candidates are listed beneath.
    """
    return el(
        "article",
        _verdict(view, prefix),
        _facts(view),
        tally(view),
        _usage(view),
        _section("Timeline", timeline(view)),
        _section("Calls", calls(view, prefix)) if listed else None,
    )


def _trace(view: View, prefix: str) -> Html:
    name = f"{prefix}trace-json"
    save = el("p", el("button", "Download the trace as JSON", type="button", data_save=name, hidden=True))
    return markup(article(view, prefix), save, data_block(view.trace, name))


def tally(view: View) -> Html | None:
    """Which answers came how often, the most frequent first; nothing where there is nothing to vote on."""
    votes = Counter(str(c["answer"]) for c in view.candidates if c.get("answer") is not None)
    if len(view.candidates) < 2 or not votes:
        return None
    chosen, total = view.top.get("answer"), sum(votes.values())
    shown = votes.most_common(_MOST_ANSWERS)
    if chosen is not None and str(chosen) in votes and str(chosen) not in dict(shown):
        shown[-1] = (str(chosen), votes[str(chosen)])
    rows = []
    for answer, count in shown:
        ours = chosen is not None and answer == str(chosen)
        mark = el("span", "★ " if ours else "", class_="mark chosen")
        head = el("th", mark, el("bdi", shorten(oneline(answer), 80)), scope="row")
        cells = el("td", _share(count / total)), el("td", plural(count, "vote"))
        rows.append(el("tr", head, *cells, class_="ours" if ours else None))
    more = len(votes) - len(shown)
    share = votes[str(chosen)] / total if chosen is not None and str(chosen) in votes else None
    said = "" if share is None else f"{share:.0%} agree with the chosen answer. "
    said += f"{plural(more, 'other answer')} not shown." if more else ""
    table = _scrolled(el("table", el("tbody", rows), class_="votes"), "Votes")
    return el("section", el("h3", "Votes"), table, el("p", said, class_="quiet") if said else None)


def _scrolled(table: Html, label: str) -> Html:
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def _share(value: float) -> Html:
    return el(
        "svg", el("rect", class_="ground", width="100%", height="100%", rx="3"),
        el("rect", class_="filled", width=f"{value:.1%}", height="100%", rx="3"),
        class_="bar", aria_hidden="true", width="120", height="8",
    )  # fmt: skip


def _section(title: str, content: Html | None) -> Html | None:
    return None if content is None else el("section", el("h3", title), content)


def _outcome(view: View) -> Html:
    return el("span", _LABELS.get(view.outcome, view.outcome), class_=f"badge {view.outcome}")


def _verdict(view: View, prefix: str) -> Html:
    top = view.top
    chosen = next((n for n in view.all() if view.mark(n.event) == "chosen" and n.kind == "candidate"), None)
    problem = visible(top.get("problem") or "")
    short = el("p", el("bdi", problem), class_="problem")
    if len(problem) > 400:
        whole = el("details", el("summary", "the whole problem"), el("pre", problem, dir="auto"))
        short = markup(el("p", el("bdi", shorten(problem, 300)), class_="problem"), whole)
    if chosen is None and view.outcome == "running":
        answer: list[object] = [el("p", "None is chosen yet: the search is still running.", class_="quiet")]
    elif chosen is None:
        answer = [el("p", f"No candidate was chosen: {view.why}.", class_="answer none")]
    else:
        value = top.get("answer")
        text = pretty(str(chosen.event.get("text") if value is None else value))
        link = el("a", f"candidate #{chosen.event.get('index', '?')}", href=f"#{prefix}e{chosen.place}")
        answer = [
            el("pre", shorten(text, 1200), class_="answer", dir="auto"),
            el("p", el("span", "★", class_="mark chosen"), " ", link, " ", score(number(top.get("score")))),
        ]
    withheld = top.get("abstained")
    title = "Withheld answer" if withheld else "Chosen answer"
    why = el("p", "No answer was given: ", el("bdi", oneline(withheld)), class_="answer none") if withheld else None
    return el("header", short, why, el("h3", title, class_="quiet"), answer)


def _facts(view: View) -> Html:
    top = view.top
    budget = limits(top) or "none of its own"
    pairs = [
        ("State" if view.outcome == "running" else "Ended", view.why),
        ("How sure", sureness(top) or None),
        ("Candidates", view.tally),
        ("Strategy", top.get("strategy")),
        ("Model", top.get("model")),
        ("Verifier", top.get("verifier") or "none"),
        ("Budget", budget),
        ("Seed", top.get("seed")),
        ("Started", re.sub(r"T([\d:]+)(\.\d+)?\+00:00$", r" \1 UTC", view.started) or None),
    ]
    return el("dl", [el("div", el("dt", k), el("dd", el("bdi", v))) for k, v in pairs if v is not None])


def _usage(view: View) -> Html:
    usage = view.top.get("usage")
    if not usage:
        return el(
            "p",
            f"The account of this solve is not closed; the trace covers {seconds(view.seconds)} so far.",
            class_="quiet",
        )
    rows = [(role, part) for role, part in (usage.get("by_role") or {}).items()] + [("total", usage)]
    names = ("", "Calls", "Requests", "Prompt tokens", "Completion", "Tokens", "Cost", "Time")
    head = el("thead", el("tr", [el("th", name, scope="col") for name in names]))
    body = el("tbody", [_usage_row(role, part, view.top.get("budget") or {}) for role, part in rows])
    notes = [
        "≤ marks an upper bound, charged where a call could not be counted." if usage.get("exact") is False else "",
        "Times by role are the calls' own, added up; the total is wall time." if len(rows) > 1 else "",
        f"Servers charged {plural(usage['overshoot'], 'token')} above what was reserved."
        if usage.get("overshoot")
        else "",
    ]
    table = el("table", el("caption", "What it took"), head, body)
    note = el("p", " ".join(filter(None, notes)), class_="quiet") if any(notes) else None
    return markup(_scrolled(table, "What it took"), note)


def _usage_row(role: str, usage: Mapping[str, Any], budget: Mapping[str, Any]) -> Html:
    def cell(key: str, text: str) -> Html:
        limit = number(budget.get(key)) if role == "total" else None
        return el("td", text, el("small", f" of {limit:,.6g}") if limit is not None else None)

    bounds = [bounded(usage, usage.get(key)) for key in ("prompt_tokens", "completion_tokens", "tokens")]
    unknown = "unknown" if usage.get("usd") is None else "$0"
    return el(
        "tr",
        el("th", role, scope="row"),
        cell("calls", f"{usage.get('calls', 0):,}"),
        el("td", f"{usage.get('requests', 0):,}"),
        el("td", bounds[0]),
        el("td", bounds[1]),
        cell("tokens", bounds[2]),
        cell("usd", money(usage) or unknown),
        cell("seconds", seconds(usage.get("seconds"))),
        class_="total" if role == "total" else None,
    )


def _filter(counts: Mapping[str, int], numbered: Mapping[str, int], total: int) -> list[Html]:
    """Radio buttons that styles alone act upon; they stand before what they hide."""
    if len(counts) < 2:
        return []
    out = [el("input", type="radio", name="outcome", id="fall", checked=True), el("label", f"all {total}", for_="fall")]
    for outcome, count in counts.items():
        name = f"f{numbered[outcome]}"
        label = f"{_LABELS.get(outcome, outcome)} {count}"
        out.append(el("input", type="radio", name="outcome", id=name))
        out.append(el("label", label, for_=name, title=STOPPED.get(outcome)))
    return out


def _summary(views: Sequence[tuple[str, View]], numbered: Mapping[str, int]) -> Html:
    names = ("Trace", "Score", "Ended", "Candidates", "Tokens", "Time", "Answer")
    rows = []
    for i, (name, view) in enumerate(views):
        usage = view.top.get("usage") or {}
        answer = {"answer": view.top.get("answer"), "text": "—"}
        cells = [
            el("th", el("a", name, href=f"#t{i}"), scope="row"),
            el("td", score(number(view.top.get("score")))),
            el("td", _outcome(view)),
            el("td", str(len(view.candidates))),
            el("td", bounded(usage, usage.get("tokens")) if usage else "?"),
            el("td", seconds(usage.get("seconds", view.seconds))),
            el("td", said(answer, 60)),
        ]
        rows.append(el("tr", cells, class_=f"row o{numbered[view.outcome]}"))
    table = el("table", el("thead", el("tr", [el("th", n, scope="col") for n in names])), el("tbody", rows))
    return _scrolled(table, "All traces")
