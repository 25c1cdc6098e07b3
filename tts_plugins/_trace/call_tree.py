"""A trace's calls as nested lists: waves, requests, candidates with their whole texts, and what befell them."""

from __future__ import annotations

from tts_plugins._trace.markup import Html, badges, el, markup, pretty, said, score
from tts_plugins._trace.outline import Node, View
from tts_plugins._trace.wording import (
    MARKS,
    NOTES,
    Event,
    bounded,
    capital,
    charged,
    duration,
    money,
    numbers,
    oneline,
    plural,
    rest,
    seconds,
    stop_words,
)

_SHOWN = ("candidate", "index", "text", "finish_reason", "truncated", "answer", "score", "feedback", "error", "pruned")


def calls(view: View, prefix: str) -> Html | None:
    """The list; anchors carry the prefix, so that many traces fit one page."""
    if not view.nodes:
        return None
    buttons = [el("button", text, type="button", data_open=state, hidden=True)
               for text, state in (("Expand all", "1"), ("Collapse all", ""))]  # fmt: skip
    tree = el("ul", [_item(view, node, prefix) for node in view.nodes], class_="tree")
    return markup(el("p", buttons, class_="tools"), tree, _descent(view, prefix))


def _item(view: View, node: Node, prefix: str) -> Html:
    event, kind, inside = node.event, node.kind, node.children
    below = el("ul", [_item(view, child, prefix) for child in inside]) if inside else None
    if kind == "candidate":
        return el("li", _candidate(view, node, prefix, below), class_=f"at-{view.mark(event)}")
    if kind == "request":
        return el("li", _request(view, node), below, class_=f"at-{view.mark(event)}")
    if kind == "wave":
        head = el(
            "summary",
            el("b", f"Wave {view.waves[id(event)]}"),
            f" · {event.get('n')} of {event.get('of')}",
            " · ",
            _timing(view, event),
        )
        return el("li", el("details", head, below, open=True), class_="wave")
    if kind == "failure":
        final = "" if event.get("retryable") else " · not retryable"
        cost = f" · {paid}" if (paid := charged(event.get("usage"))) else ""
        when = el("span", final, cost, " · ", _timing(view, event), class_="quiet")
        line = el("p", f"✗ attempt {node.attempt}: ", el("bdi", event.get("error")), when)
        return el("li", line, below, class_="at-failed")
    if kind == "stop":
        return el(
            "li",
            el("p", el("b", capital(NOTES[kind])), f": {stop_words(event)}", " · ", _timing(view, event)),
            below,
            class_="note",
        )
    if kind == "score_set":
        text = f"{event.get('verifier')} · {event.get('n')} candidates"
    else:
        text = str(event["error"]) if event.get("error") and kind in NOTES else rest(event)
    name = "Scored together" if kind == "score_set" else capital(NOTES.get(kind, oneline(kind) or "event"))
    line = el("p", el("b", name), ": " if text else None, el("bdi", text), " · ", _timing(view, event))
    return el("li", line, below, class_="note" if kind in NOTES else "other")


def _timing(view: View, event: Event) -> Html:
    took = duration(event)
    at = f"{'at' if took == 0 else 'from'} {view.moment(event.get('at'))}"
    words = ["running" if took is None else seconds(took) if took else "", at]
    return el("span", " ".join(filter(None, words)), class_="quiet")


_MOST_SEEDS = 3
_FAILED = {"failed": "failed", "out_of_budget": "out of budget"}


def _request(view: View, node: Node) -> Html:
    event, failures, mark = node.event, node.of("failure"), view.mark(node.event)
    usage, tries = event.get("usage") or {}, len(failures) + (mark != "failed" or not failures)
    given = [oneline(s) for s in event.get("seeds") or ()]
    seeds = ", ".join(given) if len(given) <= _MOST_SEEDS else f"{given[0]} and {len(given) - 1} more"
    facts = [
        f"×{event['n']}" if event.get("n") not in (None, 1) else "",
        f"{bounded(usage, usage.get('tokens'))} tokens" if usage else "",
        money(usage),
        plural(tries, "attempt") if tries > 1 else "",
        f"seed {seeds}" if seeds else "",
    ]
    shown_beneath = mark != "failed" or any(f.event.get("error") == event.get("error") for f in failures)
    role = "verifier" if event.get("role") == "verifier" else "model"
    return el(
        "div",
        el("i", class_=f"key {role}"),
        el("b", event.get("model")),
        el("span", "".join(f" · {fact}" for fact in facts if fact), " · ", _timing(view, event), class_="quiet"),
        [" ", el("span", _FAILED.get(mark, mark), class_=f"badge {mark}")] if mark != "plain" else None,
        None if shown_beneath else el("p", "✗ ", el("bdi", event.get("error")), class_="cause"),
        class_="request",
    )


def _candidate(view: View, node: Node, prefix: str, below: Html | None) -> Html:
    event, mark = node.event, view.mark(node.event)
    head = el(
        "summary",
        el("span", MARKS[mark], class_=f"mark {mark}"),
        el("b", f"#{event.get('index', '?')}"),
        el("span", event.get("candidate"), class_="quiet"),
        score(view.score(event)),
        badges(view, event),
        said(event, 160),
        el("span", el("bdi", event["feedback"]), class_="feedback") if event.get("feedback") else None,
    )
    text = str(event.get("text") or "")
    laid_out = pretty(text)
    cause = el("p", "✗ ", el("bdi", event.get("error")), class_="cause") if mark == "failed" else None
    body = [
        cause,
        _steps(event),
        el("pre", laid_out, dir="auto") if text else el("p", "An empty text.", class_="quiet"),
        _more(view, event, laid_out),
        below,
    ]
    # Losses and the winner are what one looks for; the others are a click away.
    opened = mark in ("chosen", "failed")
    return el("details", head, body, id=f"{prefix}e{node.place}", class_=f"candidate {mark}", open=opened)


def _steps(event: Event) -> Html | None:
    scores = numbers(event.get("step_scores"))
    return (
        el("ol", [el("li", score(value)) for value in scores], class_="steps", aria_label="Step scores")
        if scores
        else None
    )


def _more(view: View, event: Event, laid_out: str) -> Html:
    answer, finish = event.get("answer"), event.get("finish_reason")
    show_answer = answer is not None and str(answer) not in (event.get("text"), laid_out)
    others = rest(event, *_SHOWN, "step_scores", "parent_candidate")
    facts = [
        el("span", "answer ", el("code", el("bdi", answer))) if show_answer else None,
        el("span", f"continues {oneline(event['parent_candidate'])}") if event.get("parent_candidate") else None,
        el("span", f"finish reason {oneline(finish)}") if finish not in (None, "", "stop", "step") else None,
        el("span", others) if others else None,
    ]
    shown = [fact for fact in (*facts, _timing(view, event)) if fact is not None]
    return el("p", [[" · " if i else "", fact] for i, fact in enumerate(shown)], class_="quiet")


def _descent(view: View, prefix: str) -> Html | None:
    """Search and revision as they grew: each candidate beneath the one that it continues."""
    roots = view.lineage
    if not roots:
        return None
    places = {id(n.event): n.place for n in view.all()}

    def item(node: Node) -> Html:
        event, mark = node.event, view.mark(node.event)
        line = [
            el("span", MARKS[mark], class_=f"mark {mark}"), " ",
            el("a", f"#{event.get('index', '?')} {event.get('candidate')}", href=f"#{prefix}e{places[id(event)]}"), " ",
            score(view.score(event)), " ", badges(view, event), " ", said(event, 80),
        ]  # fmt: skip
        below = el("ul", [item(child) for child in node.children]) if node.children else None
        winner = " winner" if event.get("candidate") in view.winners else ""
        return el("li", el("div", line, class_="branch"), below, class_=f"at-{mark}{winner}")

    return markup(el("h3", "Search tree"), el("ul", [item(node) for node in roots], class_="tree descent"))
