"""Charts as SVG, coloured by the variables of the page around them. Pure."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tts_plugins._trace.markup import Html, el, markup
from tts_plugins.metrics import Estimate

WIDTH = 440.0
_HEIGHT = 300.0
COLOURS = 8
_LINE = 18.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 12.0, 40.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm by its number: what it costs, and how often it is right."""

    arm: int
    cost: float
    accuracy: Estimate
    frontier: bool
    name: str = ""

    @property
    def family(self) -> str:
        """The strategy without its numbers: arms of one family make a scaling curve."""
        return re.split(r"[:(\d]", self.name, maxsplit=1)[0].strip(" -_=") or self.name


@dataclass(frozen=True, kw_only=True)
class Key:
    """How a part of a chart is filled, and what it means."""

    style: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How something is distributed over the solves of an arm: quantiles 5, 25, 50, 75 and 95 %, and the mean."""

    arm: int
    quantiles: Sequence[float]
    mean: float


def letter(number: int) -> str:
    """Return `A`, `B`, …, `Z`, `A2`, …: how an arm is marked everywhere."""
    return chr(65 + number % 26) + (str(number // 26 + 1) if number >= 26 else "")


def badge(number: int) -> Html:
    """Return an arm's mark in running text."""
    return el("span", letter(number), class_=f"arm c{number % COLOURS}")


def against_cost(points: Sequence[Point], cost: str) -> Html:
    """Return accuracy against cost, on a logarithmic scale, with intervals and the frontier."""
    lows, highs = [p.accuracy.low for p in points], [p.accuracy.high for p in points]
    bottom, top, marks = _nice(min(lows), max(highs))
    start, end, ticks = _logarithmic([max(p.cost, 1e-9) for p in points])

    def x(value: float) -> float:
        return _LEFT + 10 + (math.log10(max(value, 1e-9)) - start) / (end - start) * (WIDTH - _LEFT - _RIGHT - 20)

    def y(value: float) -> float:
        return _TOP + (top - value) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    out = [_rule(y(m), _percent(m)) for m in marks]
    out += [_text(x(t), _HEIGHT - _BOTTOM + 16, _short(t), anchor="middle") for t in ticks]
    out.append(_text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 6, f"{cost}, logarithmic", anchor="middle"))
    out.append(_text(_LEFT + 4, _TOP + 2, "problems solved", anchor="start"))
    out += _curves(points, x, y)
    path = ""
    for p in sorted((p for p in points if p.frontier), key=lambda p: p.cost):
        px, py = x(p.cost), y(p.accuracy.value)
        path += f"M{px:.1f} {py:.1f}" if not path else f"H{px:.1f}V{py:.1f}"
    if path:
        out.append(el("path", d=f"{path}H{WIDTH - _RIGHT:.1f}", class_="frontier"))
    places = _apart([x(p.cost) for p in points])
    for p, px in zip(points, places, strict=True):
        out.append(_line(px, y(p.accuracy.low), px, y(p.accuracy.high), f"whisker k{p.arm % COLOURS}"))
    out += [
        el("g", el("title", _described(p, cost)), _marker(px, y(p.accuracy.value), p.arm))
        for p, px in zip(points, places, strict=True)
    ]
    return _svg(out, _HEIGHT, f"Accuracy against {cost}")


def _curves(points: Sequence[Point], x: Callable[[float], float], y: Callable[[float], float]) -> list[Html]:
    """Return a line through the arms of each family, in order of their cost: how it scales."""
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    out = []
    for name, members in families.items():
        if len(members) < 2:
            continue
        places = [f"{x(p.cost):.1f} {y(p.accuracy.value):.1f}" for p in sorted(members, key=lambda p: p.cost)]
        kind = f"curve k{members[0].arm % COLOURS}"
        out.append(el("path", el("title", name), d=f"M{'L'.join(places)}", class_=kind))
    return out


def _described(point: Point, cost: str) -> str:
    low, high = point.accuracy.low, point.accuracy.high
    said = f"{letter(point.arm)} {point.name}: {point.accuracy.value:.1%} ({low:.1%} to {high:.1%})"
    return f"{said} for {point.cost:,.4g} {cost}"


def by_bin(bins: Sequence[tuple[str, str]], bars: Mapping[int, Sequence[Estimate | None]]) -> Html:
    """Return accuracy of each arm in bins of difficulty: `bins` are their two lines of words, easiest first."""
    out = [_rule(_TOP + (1 - m) * (_HEIGHT - _TOP - _BOTTOM), _percent(m)) for m in (0.0, 0.25, 0.5, 0.75, 1.0)]
    place = (WIDTH - _LEFT - _RIGHT) / len(bins)
    wide = min(26.0, place * 0.84 / max(1, len(bars)))
    for b, (first, second) in enumerate(bins):
        middle = _LEFT + place * (b + 0.5)
        out.append(_text(middle, _HEIGHT - _BOTTOM + 16, first, anchor="middle"))
        out.append(_text(middle, _HEIGHT - _BOTTOM + 31, second, anchor="middle"))
        for i, (arm, values) in enumerate(bars.items()):
            value = values[b]
            if value is None:
                continue
            left = middle + (i - len(bars) / 2) * wide
            high = value.value * (_HEIGHT - _TOP - _BOTTOM)
            top = f"{_HEIGHT - _BOTTOM - high:.1f}"
            rest = {"x": f"{left + 0.5:.1f}", "y": top, "width": f"{max(wide - 1, 1):.1f}"}
            said = el("title", f"{letter(arm)}, {first}: {value}")
            out.append(el("rect", said, height=f"{max(high, 0.8):.1f}", class_=f"f{arm % COLOURS}", **rest))
            at = [_HEIGHT - _BOTTOM - e * (_HEIGHT - _TOP - _BOTTOM) for e in (value.low, value.high)]
            # The halo makes the line visible on the darkest bars too.
            out += [_line(left + wide / 2, at[0], left + wide / 2, at[1], kind) for kind in ("halo", "error")]
    return _svg(out, _HEIGHT, "Accuracy by difficulty")


def shares(rows: Sequence[tuple[int | str, Mapping[str, float]]], styles: Mapping[str, str]) -> Html:
    """Return rows of parts that add up to one; `styles` says how each part is filled."""
    out: list[Html] = []
    left = _LEFT + (26 if any(isinstance(head, str) for head, _ in rows) else 0)
    for i, (head, parts) in enumerate(rows):
        at = 6 + i * 28.0
        out.append(_head(head, at + 10, left))
        x = left
        for name, share in parts.items():
            wide = share * (WIDTH - left - _RIGHT)
            said = el("title", f"{name}: {share:.1%}")
            if wide > 0:
                place = {"x": f"{x:.1f}", "y": f"{at:.1f}", "width": f"{wide:.1f}", "height": "20"}
                out.append(el("rect", said, class_=f"part {styles[name]}", **place))
            if wide > 30:
                out.append(_text(x + wide / 2, at + 14, f"{share:.0%}", anchor="middle", kind=f"inside {styles[name]}"))
            x += wide
    return _svg(out, 6 + len(rows) * 28.0, "Shares")


def spreads(rows: Sequence[Spread], what: str) -> Html:
    """Draw for each arm a line from 5 to 95 %, a box from 25 to 75 %, a bar at the median, a dot at the mean."""
    _, most, marks = _nice(0.0, max(max(r.quantiles[-1], r.mean) for r in rows) or 1.0)  # no line ends beyond a mark
    height = 12 + len(rows) * 28.0 + 34

    def x(value: float) -> float:
        return _LEFT + value / most * (WIDTH - _LEFT - _RIGHT - 10)

    out = [_line(x(m), 4, x(m), height - 34, "grid") for m in marks]
    out += [_text(x(m), height - 20, _short(m), anchor="middle") for m in marks]
    out.append(_text((_LEFT + WIDTH) / 2, height - 4, what, anchor="middle"))
    for i, row in enumerate(rows):
        at, c = 16 + i * 28.0, row.arm % COLOURS
        low, quarter, half, three, high = row.quantiles
        out.append(_head(row.arm, at, _LEFT))
        out.append(_line(x(low), at, x(high), at, f"whisker k{c}"))
        box = {"x": f"{x(quarter):.1f}", "y": f"{at - 7:.1f}", "width": f"{max(x(three) - x(quarter), 1.5):.1f}"}
        said = f"half of the solves: {quarter:g} to {three:g}; mean {row.mean:.1f}"
        out.append(el("rect", el("title", said), height="14", rx="3", class_=f"box f{c}", **box))
        out.append(_line(x(half), at - 7, x(half), at + 7, f"whisker k{c}"))
        out.append(el("circle", cx=f"{x(row.mean):.1f}", cy=f"{at:.1f}", r="3.5", class_=f"dot f{c}"))
    return _svg(out, height, what)


def keys(names: Sequence[str]) -> Html:
    """Return the arms' marks and names, one under the other, for a stand-alone picture."""
    rows = [markup(_marker(9, 9 + 22 * i, i), _text(26, 13 + 22 * i, n, anchor="start")) for i, n in enumerate(names)]
    return markup(*rows)


def legend(keys: Sequence[Key], note: str) -> tuple[Html, float]:
    """Return a chart's keys and its note, a line each, for a stand-alone picture; and their height."""
    rows: list[Html] = []
    for i, key in enumerate(keys):
        mark = el("rect", x="0.5", y=f"{i * _LINE + 0.5:.1f}", width="11", height="11", class_=f"part {key.style}")
        rows.append(markup(mark, _text(18, i * _LINE + 10, key.words, anchor="start")))
    for line in textwrap.wrap(note, 72):
        rows.append(_text(0, len(rows) * _LINE + 10, line, anchor="start"))
    return markup(*rows), len(rows) * _LINE


def _apart(places: Sequence[float]) -> list[float]:
    """Return places that are nearly the same, moved a little aside, so that their whiskers can be distinguished."""
    out = list(places)
    left = sorted(range(len(places)), key=lambda i: places[i])
    while left:
        group = [i for i in left if places[i] - places[left[0]] < 5]
        for k, i in enumerate(group):
            out[i] += 7 * (k - (len(group) - 1) / 2)
        left = left[len(group) :]
    return out


def _svg(content: Sequence[Html], height: float, label: str) -> Html:
    box = f"0 0 {WIDTH:g} {height:g}"
    return el("svg", *content, viewBox=box, class_="chart", role="img", aria_label=label)


def _rule(y: float, label: str) -> Html:
    return markup(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"), _text(_LEFT - 6, y + 4, label, anchor="end"))


def _marker(x: float, y: float, arm: int) -> Html:
    dot = el("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="8.5", class_=f"dot f{arm % COLOURS}")
    return markup(dot, _text(x, y + 4, letter(arm), anchor="middle", kind="on"))


def _head(head: int | str, y: float, left: float) -> Html:
    if isinstance(head, int):
        return _marker(_LEFT - 18, y, head)
    return _text(left - 6, y + 4, head, anchor="end")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return el("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def _text(x: float, y: float, said: str, *, anchor: str, kind: str = "label") -> Html:
    return el("text", said, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _percent(value: float) -> str:
    return f"{value * 100:.0f} %"


def _short(value: float) -> str:
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {unit}" if value < 1e15 else f"{value:.0e}"
    return f"{value:g}"


def _nice(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return round ends around a range, and about five marks in it."""
    span = max(high - low, 1e-9 if high > 1 else 0.05)
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return first * step, last * step, [i * step for i in range(first, last + 1)]


def _logarithmic(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of a logarithmic scale, as exponents, and its marks."""
    start, end = math.log10(min(values)), math.log10(max(values))
    if end - start < 0.3:
        start, end = start - 0.15, end + 0.15
    powers = range(math.floor(start), math.ceil(end) + 1)
    steps = (1, 2, 5) if end - start < 3 else (1,)
    ticks = [m * 10.0**p for p in powers for m in steps if start <= math.log10(m * 10.0**p) <= end]
    return start, end, ticks
