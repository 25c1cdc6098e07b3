"""The parts of a report: each a table or a chart over a summary. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tts_plugins._trace.markup import Html, el
from tts_plugins._trace.wording import bounded, money, plural, seconds, shorten
from tts_plugins.bench.analysis.arm import Arm, Costs
from tts_plugins.bench.analysis.matched import Larger, Match
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.bench.report._charts import badge
from tts_plugins.metrics import Estimate

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def headline(summary: Summary, cost: Callable[[Arm], float], unit: str) -> Html | None:
    """Return the best strategy beside the first one, in a sentence; none if nothing was graded."""
    graded = [arm for arm in summary.arms if arm.accuracy is not None]
    if len(graded) < 2:
        return None
    first, best = summary.arms[0], max(graded, key=lambda arm: arm.accuracy.value if arm.accuracy is not None else 0)
    gain, value = best.gain(first), best.accuracy
    if best is first or gain is None or value is None:
        said = f"Nothing was better than {first.name}."
    else:
        sure = "" if gain.low > 0 or best.lone else ", which may be chance"
        times = f", at {cost(best) / cost(first):.1f} times the {unit}" if cost(first) > 0 else ""
        said = f"{best.name} solves {value.value:.0%} of the problems: {100 * gain.value:+.0f} points over {first.name}"
        said += f"{sure}{times}."
    return el("p", said, class_="headline")


def facts(config: Mapping[str, Any], summary: Summary) -> Html:
    """Return what was done, and what it took."""
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


def figures(summary: Summary, frontier: Sequence[Arm], costs: Costs | None) -> Html:
    """Return every arm's accuracy and costs."""
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
    """Return tokens of a solve, marked if some are bounds."""
    return "unknown" if arm.unknown else bounded({"exact": arm.exact}, arm.tokens.value)


def flops_of(arm: Arm, costs: Costs) -> str:
    """Return FLOPs of a solve, marked if they follow from bounds."""
    return "unknown" if arm.unknown else ("" if arm.exact else "≤") + f"{arm.flops(costs).value:.2e}"


def choosing(summary: Summary) -> Html | None:
    """Return what each way to choose would have reached with the same candidates."""
    heads = ["Strategy", "One candidate", "Majority", "Best score", "Weighted", "Any right", "Truncated"]
    rows = []
    for i, arm in enumerate(summary.arms):
        values = arm.selections()
        if values["any"] is None:
            continue
        cells = ["—" if v is None else f"{v:.3f}" for v in values.values()]
        rows.append(_row(i, arm.name, [*cells, f"{arm.truncated:.1%}"]))
    note = "Ties in expectation. 'Any right' is the ceiling of every choice; truncated candidates met a length limit."
    return _table("Choosing among the candidates", heads, rows, note) if rows else None


def passes(summary: Summary) -> Html | None:
    """Return unbiased pass@k of the arms that take a fixed number of candidates."""
    found = {i: {k: arm.pass_at(k) for k in POWERS} for i, arm in enumerate(summary.arms)}
    ks = [k for k in POWERS if k == 1 or any(v[k] is not None for v in found.values())]
    rows = [
        _row(i, summary.arms[i].name, ["" if (v := values[k]) is None else f"{v:.3f}" for k in ks])
        for i, values in found.items()
        if values[1] is not None
    ]
    note = "The chance that one of k candidates is right, unbiased (Chen et al. 2021, 2107.03374); for searches it "
    note += "describes their finals, which are not independent samples."
    return _table("pass@k", ["Strategy", *(f"k = {k}" for k in ks)], rows, note) if rows else None


def beside(found: Sequence[Match], larger: Larger, words: Callable[[float | None], str], *, lone: bool) -> Html:
    """Return the small model beside the larger one at matched FLOPs."""
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
    """Return how the solves ended, if not all were complete, and the first causes of those that failed."""
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
    """Return the configuration, folded."""
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
