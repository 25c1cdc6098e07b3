"""A run as one self-contained page, as a picture, or as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from tts_plugins._trace.markup import Html, el
from tts_plugins._trace.page import document
from tts_plugins.bench.analysis.arm import Arm, Costs
from tts_plugins.bench.analysis.matched import Larger, Match, matches
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.bench.report import _sections as sections
from tts_plugins.bench.report._charts import keys, legend
from tts_plugins.bench.report._drawings import charts, drawings
from tts_plugins.bench.storage.store import Store
from tts_plugins.errors import DataError, MissingExtraError
from tts_plugins.metrics import Estimate

_CHART = re.compile(r'<svg viewBox="0 0 [\d.]+ (?P<height>[\d.]+)"[^>]*>(?P<content>.*?)</svg>', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How tokens become FLOPs, and the larger model to compare with, if any."""

    costs: Costs
    larger: Larger | None = None

    def matches(self, summary: Summary) -> list[Match]:
        """Return the best arms within the larger model's FLOPs; none if there is no larger model."""
        return [] if self.larger is None else matches(summary, self.costs, self.larger)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A benchmark's configuration and its figures."""

    config: Mapping[str, Any]
    summary: Summary

    def frontier(self, place: Placing | None = None) -> list[Arm]:
        """Return the arms on the frontier of accuracy over FLOPs if these are known, else over tokens."""
        return self.summary.frontier(cost_of(place))


def cost_of(place: Placing | None) -> Any:
    """Return a function from an arm to its cost per solve: FLOPs if parameters are known, else tokens."""
    return (lambda arm: arm.tokens.value) if place is None else (lambda arm: arm.flops(place.costs).value)


def load(store: Store) -> Run:
    """Return what a store holds by now.

    Raises:
        DataError: no solve has ended yet.
    """
    config, solves = store.config, store.solves()
    if not solves:
        raise DataError(f"{store.path}: no solve has ended yet; continue the benchmark first")
    summary = Summary.of_rows(list(config["arms"]), config["seeds"], store.problems(), solves, store.candidates())
    return Run(config=config, summary=summary)


def page(run: Run, place: Placing | None = None) -> str:
    """Return one HTML page that needs nothing else: no network, and no script to be read."""
    found = place.matches(run.summary) if place is not None else []
    cost, unit = cost_of(place), "tokens of a solve" if place is None else "FLOPs of a solve"
    body = [
        el("h1", f"Benchmark: {run.config['model']}"),
        sections.headline(run.summary, cost, unit),
        sections.facts(run.config, run.summary),
        charts(run.summary, cost, unit),
        sections.figures(run.summary, run.frontier(place), None if place is None else place.costs),
        [el("p", remark, class_="quiet") for remark in remarks(run.summary)],
        sections.choosing(run.summary),
        sections.passes(run.summary),
        None
        if place is None or place.larger is None
        else sections.beside(found, place.larger, share_words, lone=any(a.lone for a in run.summary.arms)),
        sections.failures(run.summary),
        sections.settings(run.config),
    ]
    return document(f"{run.config['model']} · benchmark", [el("main", body)], _style())


def picture(run: Run, place: Placing | None = None) -> str:
    """Return the charts as one stand-alone SVG, in light colours."""
    unit = "tokens of a solve" if place is None else "FLOPs of a solve"
    drawn = drawings(run.summary, cost_of(place), unit)
    parts, heights, wide = list[Html](), [0.0, 0.0], 440.0
    for drawing in drawn:
        found = _CHART.fullmatch(drawing.chart)
        assert found is not None  # every chart is one of ours
        column = heights.index(min(heights))
        at = f"translate({20 + column * (wide + 30):g} {20 + heights[column]:g})"
        below, more = legend(drawing.keys, drawing.note)
        parts.append(el("g", el("text", drawing.title, y="12", class_="title"),
                        el("g", Html(found["content"]), transform="translate(0 22)"),
                        el("g", below, transform=f"translate(0 {float(found['height']) + 30:g})"),
                        transform=at))  # fmt: skip
        heights[column] += float(found["height"]) + more + 56
    names = el("g", keys([a.name for a in run.summary.arms]), transform=f"translate(20 {max(heights) + 16:g})")
    width, height = 2 * wide + 70, max(heights) + 30 + 22 * len(run.summary.arms)
    style = Html(f"<style>{_literal(_style())} .title {{ font-size: 14px; font-weight: 600; fill: #1c2024; }}</style>")
    ground = el("rect", width="100%", height="100%", fill="#fff")
    font = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    return el(
        "svg", style, ground, parts, names, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}", height=f"{height:g}", class_="chart", font_family=font,
    )  # fmt: skip


def check_png() -> None:
    """Raise before the work if `png_of` cannot run.

    Raises:
        MissingExtraError: `resvg-py` is not installed.
    """
    if find_spec("resvg_py") is None:
        raise MissingExtraError("a PNG needs `resvg-py`: pip install 'tts-plugins[bench]'; or write an SVG")


def png_of(svg: str) -> bytes:
    """Return a picture as PNG, at twice its size.

    Raises:
        MissingExtraError: `resvg-py` is not installed.
    """
    check_png()
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2))


def remarks(summary: Summary) -> list[str]:
    """Return what the figures do not show: which are bounds, have no interval, or leave out a problem."""
    said, bare = list[str](), len(summary.ungraded)
    if not all(arm.exact for arm in summary.arms):
        said.append("≤: the server did not count some of these tokens, which are bounds or estimates")
    if any(arm.lone for arm in summary.arms):
        said.append("Without an interval: one problem was graded, and it says nothing of others")
    for arm in summary.arms:
        if arm.answered is not None:
            given, right = arm.answered
            share = f", {right / given:.3f} of them right" if given else ""
            said.append(
                f"{arm.name} is sure enough to answer {given} of {len(arm.all)} solves{share}; the other figures "
                "are of all, those withheld included"
            )
    if bare:
        said.append(f"{bare} of {len(summary.problems)} problems have no answer and are not counted")
    return said


def as_dict(run: Run, place: Placing | None = None) -> dict[str, Any]:
    """Return the configuration and all figures, as JSON."""
    frontier = run.frontier(place)
    return {
        "config": dict(run.config),
        "done": run.summary.done,
        "of": run.summary.of,
        "ungraded_problems": run.summary.ungraded,
        "arms": [_arm(arm, run.summary.arms[0], arm in frontier, place) for arm in run.summary.arms],
        "matched_flops": [
            {"inference_share": m.share, "allowed": m.allowed, "arm": m.arm, "flops": m.flops,
             "accuracy": _plain(m.accuracy), "larger": _plain(m.larger), "difference": _plain(m.difference)}
            for m in (place.matches(run.summary) if place is not None else [])
        ],
    }  # fmt: skip


def share_words(share: float | None) -> str:
    """Return R = D_inference / D_pretraining in words."""
    return "not counted" if share is None else f"counted, R = {share:g}"


def _arm(arm: Arm, first: Arm, frontier: bool, place: Placing | None) -> dict[str, Any]:
    return {
        "name": arm.name,
        "solves": len(arm.all),
        "failed": len(arm.failed),
        "answered": None if arm.answered is None else dict(zip(("solves", "right"), arm.answered, strict=True)),
        "accuracy": _plain(arm.accuracy),
        "over_the_first": _plain(arm.gain(first)),
        "candidates": _plain(arm.samples),
        "calls": _plain(arm.calls),
        "tokens": None if arm.unknown else _plain(arm.tokens),
        "usd": _plain(arm.usd),
        "seconds": _plain(arm.seconds),
        "flops": None if place is None else _plain(arm.flops(place.costs)),
        "exact": arm.exact,
        "frontier": frontier,
        "selections": arm.selections(),
        "pass_at": {k: arm.pass_at(k) for k in sections.POWERS if arm.pass_at(k) is not None},
        "outcomes": arm.outcomes(),
        "truncated": arm.truncated,
    }


def _plain(e: Estimate | None) -> dict[str, float] | None:
    return None if e is None else {"value": e.value, "low": e.low, "high": e.high}


def _style() -> str:
    return files(__package__).joinpath("report.css").read_text("utf-8")


def _literal(style: str) -> str:
    """Return styles with the light colours filled in: picture renderers do not support CSS variables."""
    house = files("tts_plugins._trace").joinpath("page.css").read_text("utf-8")
    colours: dict[str, str] = {}
    for name, value in re.findall(r"(--\w+): ([^;]+);", house + style):
        colours.setdefault(name, value)  # the light ones come first
    return re.sub(r"var\((--\w+)\)", lambda m: colours[m[1]], re.sub(r"@media[^{]*\{.*?\}\s*\}", "", style, flags=re.S))
