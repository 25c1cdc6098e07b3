"""The charts of a report, each with its title, its keys and a note. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, quantiles

from tts_plugins._trace.markup import Html, el, markup
from tts_plugins._trace.wording import shorten
from tts_plugins.bench.analysis.arm import OUTCOMES, Arm, accuracy_in
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.bench.report import _charts as chart
from tts_plugins.bench.report._charts import Key, badge, letter

Cost = Callable[[Arm], float]
_STYLES = dict(zip(OUTCOMES, ("right", "wrongly", "absent", "cut", "lost"), strict=True))
_WORDS = {
    OUTCOMES[0]: "right", OUTCOMES[1]: "wrong, though a right answer was there",
    OUTCOMES[2]: "no right answer among the candidates", OUTCOMES[3]: "every candidate cut, or without an answer",
    OUTCOMES[4]: "failed",
}  # fmt: skip
_BARS = 8  # more bars in a group cannot be distinguished


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart with what it needs to be read: keys of its own, besides those of the arms, and a note."""

    title: str
    chart: Html
    keys: tuple[Key, ...] = ()
    note: str = ""


def drawings(summary: Summary, cost: Cost, unit: str) -> list[Drawing]:
    """Return the charts that the data allow."""
    numbers = {arm.name: i for i, arm in enumerate(summary.arms)}
    graded = [a for a in summary.arms if a.accuracy is not None]
    out = list[Drawing]()
    if graded:
        out.append(_against_cost(summary, numbers, cost, unit))
        if summary.ease:  # none if every solve failed: there is no candidate to judge it by
            out.append(_by_bin(summary, numbers))
        out.append(_outcomes(summary, numbers))
    spread = [_spread(a, numbers[a.name]) for a in summary.arms]
    if any(s.quantiles[-1] != s.quantiles[0] for s in spread):
        note = "Line: 5 to 95 % of the solves; box: 25 to 75 %; dot: the mean."
        out.append(Drawing(title="When they stopped", chart=chart.spreads(spread, "candidates of a solve"), note=note))
    return out + [made for i, a in enumerate(summary.arms) if (made := _chosen(summary, a, i)) is not None]


def charts(summary: Summary, cost: Cost, unit: str) -> Html:
    """Return all charts, with the key of the arms above them."""
    keys = [[el("span", badge(i), arm.name, class_="legend"), " "] for i, arm in enumerate(summary.arms)]
    figures = [
        el("figure", el("h3", d.title), d.chart, el("figcaption", [_key(k) for k in d.keys], d.note))
        for d in drawings(summary, cost, unit)
    ]
    return el("section", el("p", keys, class_="wrapping"), el("div", figures, class_="charts"))


def _key(key: Key) -> Html:
    # The space between two keys is where the line may break.
    return markup(el("span", el("span", class_=f"key {key.style}"), key.words, class_="legend"), " ")


def _against_cost(summary: Summary, numbers: Mapping[str, int], cost: Cost, unit: str) -> Drawing:
    frontier = summary.frontier(cost)
    points = [
        chart.Point(arm=numbers[a.name], cost=cost(a), accuracy=a.accuracy, frontier=a in frontier, name=a.name)
        for a in summary.arms
        if a.accuracy is not None
    ]
    note = "Whiskers: 95 %, resampled by problem. Lines: one strategy with more compute. "
    note += "Dashed: the frontier, where nothing is as right for less."
    return Drawing(title="Accuracy against compute", chart=chart.against_cost(points, unit), note=note)


def _by_bin(summary: Summary, numbers: Mapping[str, int]) -> Drawing:
    bins = summary.bins()
    words = [(bin_name(i, len(bins)), f"{mean(summary.ease[p] for p in b):.2f}") for i, b in enumerate(bins)]
    bars = {numbers[a.name]: [accuracy_in(a, b) for b in bins] for a in summary.arms[:_BARS]}
    note = "Problems in bins by the share of right candidates, which is below each bin."
    note += f" The first {_BARS} strategies." if len(summary.arms) > _BARS else ""
    return Drawing(title="Accuracy by difficulty", chart=chart.by_bin(words, bars), note=note)


def bin_name(number: int, of: int) -> str:
    """Return what a bin of difficulty is called; one alone has no others to be easier than."""
    return "all" if of == 1 else "easiest" if number == 0 else "hardest" if number == of - 1 else str(number + 1)


def _outcomes(summary: Summary, numbers: Mapping[str, int]) -> Drawing:
    rows: list[tuple[int | str, Mapping[str, float]]] = [(numbers[a.name], a.outcomes()) for a in summary.arms]
    seen = {name for _, shares in rows for name, share in shares.items() if share}
    keys = tuple(Key(style=_STYLES[name], words=_WORDS[name]) for name in OUTCOMES if name in seen)
    return Drawing(title="What became of the solves", chart=chart.shares(rows, _STYLES), keys=keys)


def _spread(arm: Arm, number: int) -> chart.Spread:
    values = [float(len(arm.candidates.get((s.problem, s.arm, s.seed), ()))) for s in arm.all]
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
    return chart.Spread(arm=number, quantiles=[cuts[i] for i in (0, 4, 9, 14, 18)], mean=mean(values))


def _chosen(summary: Summary, arm: Arm, number: int) -> Drawing | None:
    """Return the strategies that a policy chose, most frequent first, in each bin of difficulty."""
    names = [name for name, _ in Counter(s.choice for s in arm.all if s.choice is not None).most_common()]
    if not names:
        return None
    rows: list[tuple[int | str, Mapping[str, float]]] = []
    bins = summary.bins()
    for i, problems in enumerate(bins):
        counts = Counter(s.choice for s in arm.all if s.problem in problems and s.choice is not None)
        total = max(1, counts.total())
        rows.append((bin_name(i, len(bins)), {name: counts[name] / total for name in names}))
    styles = {name: f"c{n % chart.COLOURS}" for n, name in enumerate(names)}
    keys = tuple(Key(style=styles[name], words=shorten(name, 70)) for name in names)
    return Drawing(title=f"What {letter(number)} chose", chart=chart.shares(rows, styles), keys=keys)
