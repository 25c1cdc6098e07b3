"""Risk against coverage: how many questions are answered, and how many of these answers are wrong, as a page."""

from __future__ import annotations

from collections.abc import Sequence

from tts_plugins._trace.markup import Html, el
from tts_plugins._trace.page import document
from tts_plugins.bench.report._charts import (
    _BOTTOM,
    _HEIGHT,
    _LEFT,
    _RIGHT,
    _TOP,
    COLOURS,
    WIDTH,
    _line,
    _marker,
    _nice,
    _percent,
    _rule,
    _svg,
    _text,
    badge,
)
from tts_plugins.bench.report.page import _style
from tts_plugins.policies import Abstention

_DOTS = (
    "A dot, below its letter, is the threshold that keeps this promise on other questions of the same kind. It stands "
    "left of where the curve crosses the line, because the curve is that of a limited number of problems."
)
_NO_DOTS = "No threshold is shown to keep it on other questions, so there is no dot: every question is answered."


def abstention_page(found: Sequence[tuple[str, Abstention]], title: str) -> str:
    """Return one HTML page that needs nothing else, with a risk-coverage curve for each of the named thresholds."""
    risk = found[0][1].risk if found else 0.0
    body = [
        el("h1", f"When to answer: {title}"),
        el(
            "p",
            "A question is answered only if the answer's confidence reaches a threshold. To the right, more questions "
            "are answered; upwards, more of the answers are wrong. The dashed line is the share that may be wrong. "
            + (_DOTS if any(each.below is not None for _, each in found) else _NO_DOTS),
        ),
        el(
            "div",
            risk_coverage(found, risk),
            el("div", [el("p", badge(i), _said(name, each)) for i, (name, each) in enumerate(found)]),
            class_="charts",
        ),
        _table(found),
    ]
    return document(f"{title} · when to answer", [el("main", body)], _style())


def _said(name: str, found: Abstention) -> str:
    """Return a name, and what the table below does not say of it."""
    return f"{name}." if found.below is not None else f"{name}: {found.words}."


def risk_coverage(found: Sequence[tuple[str, Abstention]], risk: float) -> Html:
    """Return the curves: the share of wrong answers against the share of questions answered."""
    highest = max([risk * 1.5, *(bad for _, each in found for _, _, bad in each.curve)], default=0.1)
    _, top, marks = _nice(0.0, highest)

    def x(value: float) -> float:
        return _LEFT + value * (WIDTH - _LEFT - _RIGHT - 12)

    def y(value: float) -> float:
        return _TOP + (top - value) / top * (_HEIGHT - _TOP - _BOTTOM)

    out = [_rule(y(m), _percent(m)) for m in marks]
    out += [_text(x(m), _HEIGHT - _BOTTOM + 16, _percent(m), anchor="middle") for m in (0, 0.25, 0.5, 0.75, 1)]
    out.append(_text((_LEFT + WIDTH) / 2, _HEIGHT - 6, "questions answered", anchor="middle"))
    out.append(_text(_LEFT + 6, _TOP + 14, "answers that are wrong", anchor="start"))
    out.append(_line(x(0), y(risk), x(1), y(risk), "frontier"))
    taken: list[tuple[float, float]] = []
    for i, (name, each) in enumerate(found):
        points = [f"{x(coverage):.1f} {y(wrong):.1f}" for _, coverage, wrong in each.curve]
        if len(points) == 1:  # all answers are equally sure
            points = [f"{x(0):.1f} {y(each.curve[0][2]):.1f}", *points]
        if points:
            out.append(el("path", el("title", name), d=f"M{'L'.join(points)}", class_=f"curve k{i % 8}"))
        if each.below is not None:
            said = el("title", f"{name}: {each.words}")
            at = x(each.coverage), y(each.wrong / max(each.answered, 1))
            dot = el("circle", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r="3", class_=f"dot f{i % COLOURS}")
            out.append(el("g", said, dot, _marker(*_free(*at, taken), i)))
    return _svg(out, _HEIGHT, "Share of wrong answers against the share of questions answered")


def _free(x: float, y: float, taken: list[tuple[float, float]]) -> tuple[float, float]:
    """Return a place for a letter above its dot that no other letter covers."""
    place = x, y - _APART
    while any(abs(place[0] - a) < _APART and abs(place[1] - b) < _APART for a, b in taken):
        place = place[0], place[1] - _APART
    taken.append(place)
    return place


_APART = 18.0


def _table(found: Sequence[tuple[str, Abstention]]) -> Html:
    names = ("", "Answer from", "Answered", "Wrong", "May be wrong", "Needed at least")
    rows = [
        el(
            "tr",
            el("th", badge(i), name, scope="row", class_="words"),
            el("td", each.threshold),
            el("td", "-" if each.below is None else f"{each.answered} of {each.problems} ({each.coverage:.0%})"),
            el("td", "-" if each.below is None else str(each.wrong)),
            el("td", f"at most {100 * each.risk:.3g}%, with {each.confidence:.0%} confidence"),
            el("td", f"{each.needed} answered"),
        )
        for i, (name, each) in enumerate(found)
    ]
    table = el("table", el("thead", el("tr", [el("th", n, scope="col") for n in names])), el("tbody", rows))
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label="Thresholds")
