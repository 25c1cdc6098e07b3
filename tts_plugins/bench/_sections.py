"""The parts of a report: each a table or a chart over a summary. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, quantiles
from typing import Any

from tts_plugins.bench import _charts as chart
from tts_plugins.bench._charts import badge, letter
from tts_plugins.bench.matched import Larger, Match
from tts_plugins.bench.metrics import Estimate
from tts_plugins.bench.summary import OUTCOMES, Arm, Costs, Summary, accuracy_in
from tts_plugins.engine._html import Html, el, markup
from tts_plugins.engine._words import bounded, money, plural, seconds, shorten

Cost = Callable[[Arm], float]
POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_STYLES = dict(zip(OUTCOMES, ("right", "wrongly", "absent", "cut", "lost"), strict=True))
_WORDS = {
    OUTCOMES[0]: "right", OUTCOMES[1]: "wrong, though a right answer was there",
    OUTCOMES[2]: "no right answer among the candidates", OUTCOMES[3]: "every candidate cut, or without an answer",
    OUTCOMES[4]: "failed",
}  # fmt: skip
_BARS = 8  # more bars in a group cannot be told apart


def facts(config: Mapping[str, Any], summary: Summary) -> Html:
    """What was done, and what it took."""
    solves = [s for arm in summary.arms for s in arm.all]
    usd = None if any(s.usd is None for s in solves) else sum(s.usd or 0.0 for s in solves)
    pairs = [
        ("Problems", f"{len(summary.problems):,}"),
        ("Strategies", f"{len(summary.arms):,}"),
        ("Seeds", f"{len(config['seeds']):,}"),
        ("Solves", f"{summary.done:,}" + ("" if summary.done == summary.of else f" of {summary.of:,}")),
        ("Verifier", str(config.get("verifier") or "none")),
        ("Spent", _spent(summary)),
        ("Cost", "unknown" if usd is None else money({"usd": usd}) or "$0"),
        ("Samples", "recorded; replayed here" if config.get("pool") else "live"),
    ]
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def _spent(summary: Summary) -> str:
    solves = [s for arm in summary.arms for s in arm.all]
    tokens = bounded({"exact": all(arm.exact for arm in summary.arms)}, sum(s.tokens for s in solves))
    return f"{sum(s.calls for s in solves):,} calls, {tokens} tokens"


def drawings(summary: Summary, cost: Cost, unit: str) -> list[tuple[str, Html]]:
    """The charts that the data allow, each with its title."""
    numbers = {arm.name: i for i, arm in enumerate(summary.arms)}
    frontier = summary.frontier(cost)
    points = [
        chart.Point(arm=numbers[a.name], cost=cost(a), accuracy=a.accuracy, frontier=a in frontier)
        for a in summary.arms
        if a.accuracy is not None
    ]
    out: list[tuple[str, Html]] = []
    if points:
        out.append(("Accuracy against compute", chart.against_cost(points, unit)))
        if summary.ease:  # none where every solve failed: there is no candidate to tell it by
            out.append(("Accuracy by difficulty", _by_bin(summary, numbers)))
        rows: list[tuple[int | str, Mapping[str, float]]] = [(numbers[a.name], a.outcomes()) for a in summary.arms]
        out.append(("What became of the solves", chart.shares(rows, _STYLES)))
    spread = [_spread(a, numbers[a.name]) for a in summary.arms]
    if any(s.quantiles[-1] != s.quantiles[0] for s in spread):
        out.append(("When they stopped", chart.spreads(spread, "candidates of a solve")))
    return out + [
        (f"What {letter(i)} chose", made) for i, a in enumerate(summary.arms) if (made := _chosen(summary, a))
    ]


def charts(summary: Summary, cost: Cost, unit: str) -> Html:
    """All charts, with the key of the arms above them."""
    keys = [[el("span", badge(i), arm.name, class_="legend"), " "] for i, arm in enumerate(summary.arms)]
    notes = {
        "Accuracy against compute": "Whiskers: 95 %, resampled by problem. Dashed: the frontier, where nothing is as "
        "right for less.",
        "Accuracy by difficulty": "Problems in bins by the share of right candidates, which is below each bin."
        + (f" The first {_BARS} strategies." if len(summary.arms) > _BARS else ""),
        "When they stopped": "Line: 5 to 95 % of the solves; box: 25 to 75 %; dot: the mean.",
    }
    figures = [
        el("figure", el("h3", title), made, el("figcaption", _caption(title, notes, summary)))
        for title, made in drawings(summary, cost, unit)
    ]
    return el("section", el("p", keys, class_="wrapping"), el("div", figures, class_="charts"))


def _caption(title: str, notes: Mapping[str, str], summary: Summary) -> object:
    if title == "What became of the solves":
        seen = {name for arm in summary.arms for name, share in arm.outcomes().items() if share}
        return [_key(_STYLES[name], _WORDS[name]) for name in OUTCOMES if name in seen]
    if title.startswith("What ") and title not in notes:
        arm = summary.arms[next(i for i in range(len(summary.arms)) if title == f"What {letter(i)} chose")]
        return [_key(f"c{n % chart.COLOURS}", shorten(name, 70)) for name, n in _choices(arm).items()]
    return notes.get(title, "")


def _key(style: str, words: str) -> Html:
    # The space between two keys is where the line may break.
    return markup(el("span", el("span", class_=f"key {style}"), words, class_="legend"), " ")


def _by_bin(summary: Summary, numbers: Mapping[str, int]) -> Html:
    bins = summary.bins()
    words = [(_bin(i, len(bins)), f"{mean(summary.ease[p] for p in b):.2f}") for i, b in enumerate(bins)]
    bars = {numbers[a.name]: [accuracy_in(a, b) for b in bins] for a in summary.arms[:_BARS]}
    return chart.by_bin(words, bars)


def _bin(number: int, of: int) -> str:
    """What a bin of difficulty is called; one alone has no others to be easier than."""
    return "all" if of == 1 else "easiest" if number == 0 else "hardest" if number == of - 1 else str(number + 1)


def _spread(arm: Arm, number: int) -> chart.Spread:
    values = [float(len(arm.candidates.get((s.problem, s.arm, s.seed), ()))) for s in arm.all]
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
    return chart.Spread(arm=number, quantiles=[cuts[i] for i in (0, 4, 9, 14, 18)], mean=mean(values))


def _choices(arm: Arm) -> dict[str, int]:
    """The strategies that a policy chose, most frequent first, each with its number."""
    counts = Counter(s.choice for s in arm.all if s.choice is not None)
    return {name: i for i, (name, _) in enumerate(counts.most_common())}


def _chosen(summary: Summary, arm: Arm) -> Html | None:
    names = _choices(arm)
    if not names:
        return None
    rows: list[tuple[int | str, Mapping[str, float]]] = []
    bins = summary.bins()
    for i, problems in enumerate(bins):
        counts = Counter(s.choice for s in arm.all if s.problem in problems and s.choice is not None)
        total = max(1, counts.total())
        rows.append((_bin(i, len(bins)), {name: counts[name] / total for name in names}))
    return chart.shares(rows, {name: f"f{n % chart.COLOURS}" for name, n in names.items()})


def figures(summary: Summary, frontier: Sequence[Arm], costs: Costs | None) -> Html:
    """Every arm's accuracy and costs."""
    heads = ["Strategy", "Right", "Over the first", "Candidates", "Calls", "Tokens"]
    heads += ["FLOPs"] * (costs is not None) + ["Cost", "Time"]
    rows, first = [], summary.arms[0]
    for i, arm in enumerate(summary.arms):
        over = "" if arm is first else arm.gain(first) or ""
        price = "unknown" if arm.usd is None else money({"usd": arm.usd.value}) or "$0"
        cells = [_estimate(arm.accuracy, lone=arm.lone), _estimate(over, signed=True, lone=arm.lone),
                 f"{arm.samples.value:.1f}", f"{arm.calls.value:.1f}", tokens_of(arm),
                 *([flops_of(arm, costs)] if costs is not None else []), price, seconds(arm.seconds.value)]  # fmt: skip
        star = el("span", " ★", class_="star", title="on the frontier") if arm in frontier else None
        rows.append(_row(i, arm.name, cells, star))
    note = "Means of a solve, with 95 % intervals from resampling problems, the differences paired; ★: on the frontier."
    return _table("Figures", heads, rows, note)


def tokens_of(arm: Arm) -> str:
    """Tokens of a solve, marked where some are bounds."""
    return bounded({"exact": arm.exact}, arm.tokens.value)


def flops_of(arm: Arm, costs: Costs) -> str:
    """FLOPs of a solve, marked where they follow from bounds."""
    return ("" if arm.exact else "≤") + f"{arm.flops(costs).value:.2e}"


def choosing(summary: Summary) -> Html | None:
    """What each way to choose would have reached with the same candidates."""
    heads = ["Strategy", "One candidate", "Majority", "Best score", "Weighted", "Any right", "Truncated"]
    rows = []
    for i, arm in enumerate(summary.arms):
        values = arm.selections()
        if values["any"] is None:
            continue
        cells = ["—" if v is None else f"{v:.3f}" for v in values.values()]
        rows.append(_row(i, arm.name, [*cells, f"{arm.truncated:.1%}"]))
    note = "Ties in expectation. «Any right» is the ceiling of every choice; truncated candidates met a length limit."
    return _table("Choosing among the candidates", heads, rows, note) if rows else None


def passes(summary: Summary) -> Html | None:
    """Unbiased pass@k of the arms that take a fixed number of candidates."""
    found = {i: {k: arm.pass_at(k) for k in POWERS} for i, arm in enumerate(summary.arms)}
    ks = [k for k in POWERS if k == 1 or any(v[k] is not None for v in found.values())]
    rows = [
        _row(i, summary.arms[i].name, ["" if (v := values[k]) is None else f"{v:.3f}" for k in ks])
        for i, values in found.items()
        if values[1] is not None
    ]
    note = "The chance that one of k candidates is right, unbiased (Chen et al. 2021, 2107.03374); for searches it "
    note += "describes their finals, which are no independent samples."
    return _table("pass@k", ["Strategy", *(f"k = {k}" for k in ks)], rows, note) if rows else None


def beside(found: Sequence[Match], larger: Larger, words: Callable[[float | None], str], *, lone: bool) -> Html:
    """The small model beside the larger one at matched FLOPs."""
    heads = ["Pretraining", "FLOPs allowed", "Best within it", "Its FLOPs", "Right", larger.name, "Difference"]
    rows = []
    for m in found:
        cells = [f"{m.allowed:.2e}", m.arm or "nothing fits", "" if m.flops is None else f"{m.flops:.2e}",
                 *(_estimate(e, lone=lone) for e in (m.accuracy, m.larger)),
                 _estimate(m.difference, signed=True, lone=lone)]  # fmt: skip
        rows.append(el("tr", el("th", words(m.share), scope="row"), [el("td", c) for c in cells]))
    note = (
        f"One answer of {larger.name} takes {larger.flops:.2e} FLOPs ({larger.tokens:,.0f} tokens). With pretraining "
        "counted, the smaller model may spend more: M + 3 / R (M − 1) times its tokens, R = inference / pretraining "
        "tokens (2408.03314, section 7). The strategy is chosen on the problems that it is measured on."
    )
    return _table(f"Beside one answer of {larger.name}", heads, rows, note)


def failures(summary: Summary) -> Html | None:
    """How the solves ended, where not all were complete, and the first causes of those that failed."""
    counts = {i: Counter(s.stopped for s in arm.all) for i, arm in enumerate(summary.arms)}
    kinds = sorted({kind for count in counts.values() for kind in count})
    if kinds == ["complete"]:
        return None
    rows = [
        _row(i, summary.arms[i].name, [f"{count[kind] / count.total():.0%}" for kind in kinds])
        for i, count in counts.items()
    ]
    errors = Counter(s.error for arm in summary.arms for s in arm.all if s.error is not None)
    causes = [el("li", f"{plural(n, 'solve')}: {shorten(str(e), 200)}") for e, n in errors.most_common(5)]
    made = _table("How they ended", ["Strategy", *(k.replace("_", " ") for k in kinds)], rows, "")
    return el("section", made, el("ul", causes, class_="cause") if causes else None)


def settings(config: Mapping[str, Any]) -> Html:
    """The configuration, folded."""
    return el("details", el("summary", "Configuration"), el("pre", json.dumps(config, indent=2, ensure_ascii=False)))


def _row(number: int, name: str, cells: Sequence[object], more: Html | None = None) -> Html:
    return el(
        "tr",
        el("th", badge(number), el("span", name, class_="name"), more, scope="row", title=name),
        [el("td", c, class_="number") for c in cells],
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Html], note: str) -> Html:
    named = [
        el("th", h, scope="col", class_="number" if i and "Strategy" in heads else None) for i, h in enumerate(heads)
    ]
    made = el("table", el("thead", el("tr", named)), el("tbody", rows), class_="wide")
    scroll = el("div", made, class_="scroll", tabindex="0", role="region", aria_label=title)
    return el("section", el("h2", title), scroll, el("p", note, class_="quiet") if note else None)


def _estimate(value: Estimate | str | None, *, lone: bool, signed: bool = False) -> object:
    if not isinstance(value, Estimate):
        return "not graded" if value is None and not signed else value or ""
    sign = "+" if signed else ""
    said = f"{value.value:{sign}.3f}"
    return said if lone else [said, " ", el("small", f"{value.low:{sign}.3f} to {value.high:{sign}.3f}")]
