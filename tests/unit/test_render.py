"""Renderings of traces: real ones from a scripted model, and hostile, unfinished and future ones made by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest

from tts_plugins._trace.markup import pretty
from tts_plugins._trace.terminal import fragment, page, pages, tree
from tts_plugins._trace.wording import columns, visible
from tts_plugins.budget import FREE, Bound, Budget, Limits
from tts_plugins.engine import solve
from tts_plugins.errors import AllCandidatesFailed, RateLimited, ServerFailed
from tts_plugins.protocols import Run
from tts_plugins.stopping import Threshold
from tts_plugins.strategies import BestOfN
from tts_plugins.types import Candidate, Generation, Problem, Reply, Score, Usage

HOSTILE = (
    "</pre></textarea><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; \0 \x1b[31m \u202e gpj \ud800 end"
)
VOID = {"meta", "input"}
Say = Callable[[int], tuple[str, float | asyncio.Event]]


class Scripted:
    """Candidate i is `say(i)`: a text, and the seconds or the event until it is there; `fail` raises at first."""

    name = "scripted"
    limits = Limits()
    batch = 1

    def __init__(self, say: Say, fail: Mapping[int, Sequence[Exception]] | None = None) -> None:
        self._say, self._fail, self._seeds = say, {k: list(v) for k, v in (fail or {}).items()}, list[int | None]()

    async def bound(self, problem: Problem) -> Bound:
        return Bound(prompt_tokens=20, completion_tokens=30, usd=0.0)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        if seeds[0] not in self._seeds:
            self._seeds.append(seeds[0])
        i = self._seeds.index(seeds[0])
        text, wait = self._say(i)
        await (wait.wait() if isinstance(wait, asyncio.Event) else asyncio.sleep(wait))
        if self._fail.get(i):
            raise self._fail[i].pop(0)
        usage = Usage(calls=1, requests=1, prompt_tokens=20, completion_tokens=5, usd=0.0)
        return Reply(generations=(Generation(text=text),), usage=usage)


class Judge:
    """Scores candidate i with `scores[i]`, by one request to a model of its own; NaN is its way to fail."""

    name = "judge"

    def __init__(self, *scores: float, asks: bool = True) -> None:
        self.given, self.six = 0, asyncio.Event()
        self._scores, self._model = scores, Scripted(lambda i: ("8", 0.005)) if asks else None

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        return FREE if self._model is None else await self._model.bound(problem)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        if self._model is not None:
            await run.generate(self._model, Problem("judge this"))
        self.given += 1
        if self.given == 6:
            self.six.set()
        value = self._scores[candidate.index % len(self._scores)]
        return Score(value=value, feedback="" if value == 1 else f"only {value}")


async def traced(*, n: int, model: Scripted, verifier: Judge, stop: Threshold | None = None) -> dict[str, Any]:
    """The trace of one solve."""
    result = await solve(
        "What is 17 * 23?", model=model, verifier=verifier, strategy=BestOfN(n=n, stop=stop, wave=n), seed=0,
        budget=Budget(calls=600, tokens=90_000),
    )  # fmt: skip
    return result.trace.to_dict()


@pytest.fixture
async def eight() -> dict[str, Any]:
    """Best-of-8: one lost to its verifier, one retried, one still generating when the rule stopped it."""

    judge = Judge(0.25, float("nan"), 0.5, 0.75, 0.1, 0.3, 1.0)

    def say(i: int) -> tuple[str, float | asyncio.Event]:
        # The good one comes when all others have their scores, and the last one never.
        return f"so the answer is \\boxed{{{380 + i}}}", asyncio.Event() if i == 7 else judge.six if i == 6 else 0.01

    model = Scripted(say, {2: [RateLimited("429 slow down", retry_after=0.01)]})
    return await traced(n=8, model=model, verifier=judge, stop=Threshold(0.9))


def searched() -> dict[str, Any]:
    """A search tree, as later strategies will write it."""

    def candidate(i: int, name: str, parent: str | None, **data: Any) -> dict[str, Any]:
        return {
            "id": i, "kind": "candidate", "parent": 1, "at": i / 10, "end": i / 10 + 0.1, "candidate": name,
            "index": i - 2, "text": f"text of {name}", "parent_candidate": parent, **data,
        }  # fmt: skip

    events = [
        {"id": 0, "kind": "solve", "parent": None, "at": 0.0, "end": 1.0, "problem": "p", "strategy": "BeamSearch(n=4)",
         "model": "m", "verifier": "prm", "seed": 1, "chosen": "c4", "score": 0.9, "stopped": "complete"},
        {"id": 1, "kind": "level", "parent": 0, "at": 0.0, "end": 1.0, "depth": 1, "kept": ["c1"]},
        candidate(2, "c1", None, score=0.6, step_scores=[0.6]),
        candidate(3, "c2", None, score=0.2, step_scores=[0.2], pruned=True),
        candidate(4, "c3", "c1", score=0.4, step_scores=[0.6, 0.4], pruned=True),
        candidate(5, "c4", "c1", score=0.9, step_scores=[0.6, 0.9], answer="42"),
    ]  # fmt: skip
    return {"version": 1, "started": "2026-01-01T00:00:00+00:00", "events": events}


def one(text: str, **data: Any) -> dict[str, Any]:
    """A finished trace with one candidate of that text."""
    events = [
        {"id": 0, "kind": "solve", "parent": None, "at": 0.0, "end": 1.0, "problem": text, "strategy": text,
         "model": text, "verifier": text, "seed": 0, "chosen": "c1", "answer": text, "score": 0.5,
         "stopped": "complete",
         "usage": Usage(calls=1, by_role={"model": Usage(calls=1)}).to_dict()},
        {"id": 1, "kind": "request", "parent": 0, "at": 0.0, "end": 0.5, "role": "model", "model": text, "n": 1},
        {"id": 2, "kind": "failure", "parent": 1, "at": 0.1, "end": 0.1, "error": text, "retryable": True},
        {"id": 3, "kind": "candidate", "parent": 1, "at": 0.5, "end": 1.0, "candidate": "c1", "index": 0, "text": text,
         "answer": text, "score": 0.5, "feedback": text, **data},
        {"id": 4, "kind": text, "parent": 0, "at": 1.0, "end": 1.0, text: text},
        {"id": 5, "kind": "stop", "parent": 0, "at": 1.0, "end": 1.0, "rule": text, "seen": 1, "left": 0},
    ]  # fmt: skip
    return {"version": 1, "started": "", "events": events}


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed, in order; collects elements, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def values(self, attribute: str, tag: str | None = None) -> list[str]:
        return [v or "" for t, name, v in self.attributes if name == attribute and tag in (None, t)]

    def has_class(self, name: str) -> int:
        return sum(name in value.split() for value in self.values("class"))


def check_safe(text: str) -> Page:
    """Well-formed, self-contained, without inline handlers or styles, unique ids, links that lead somewhere."""
    text.encode("utf-8")
    read = Page(text)
    names = {name for _, name, _ in read.attributes}
    assert not names & {"src", "srcset", "style", "action", "formaction", "xlink:href", "background", "poster"}
    assert not [name for name in names if name.startswith("on")]
    assert not set(read.tags) & {"link", "img", "iframe", "object", "embed", "base", "form", "textarea", "template"}
    ids = read.values("id")
    assert len(ids) == len(set(ids))
    assert all(href.startswith("#") and href[1:] in ids for href in read.values("href"))
    assert all(target in ids for target in read.values("for"))
    assert "url(" not in text and "@import" not in text
    return read


def embedded(text: str) -> list[Any]:
    """The traces that a page carries as data."""
    return [json.loads(m) for m in re.findall(r'<script type="application/json" id="[^"]*">(.*?)</script>', text, re.S)]


class TestTree:
    async def test_heading_says_what_came_of_it(self, eight: dict[str, Any]) -> None:
        first, *rest = tree(eight).splitlines()
        assert first == "What is 17 * 23? → 386  1.00 █████"
        heading = " ".join(line.strip() for line in rest[:6])
        for part in (
            "BestOfN(n=8", "model scripted", "verifier judge", "seed 0",
            "ended: its stop rule was met: Threshold(score=0.9)",
            "6 candidates", "1 failed", "1 cancelled", "calls (model 9, verifier 7)", "budget 600 calls, 90,000 tokens",
        ):  # fmt: skip
            assert part in heading, part
        assert re.search(r"≤\d+ tokens", heading), "a cancelled call is charged at its bound"

    async def test_every_call_and_candidate_is_there(self, eight: dict[str, Any]) -> None:
        text = tree(eight)
        assert re.search(r"★ #6 c\d+  1\.00 █████  = 386", text)
        assert text.count("★") == 1
        assert re.search(r"• #0 c\d+  0\.25 █░░░░  = 380 · only 0\.25", text)
        assert re.search(r"✗ #1 c\d+  “so the answer is", text)
        assert "✗ InvalidScore: judge: score of candidate" in text
        assert "2 attempts" in text and "✗ attempt 1, at" in text and "RateLimited: 429 slow down" in text
        assert "· (cancelled) · seed" in text
        assert text.count("· verifier ·") == 7
        assert "stop rule met at" in text.splitlines()[-1]
        assert "wave 1: 8 of 8" in text

    async def test_verifier_requests_stand_beneath_their_candidate(self, eight: dict[str, Any]) -> None:
        lines = tree(eight).splitlines()
        at = next(i for i, line in enumerate(lines) if "★" in line and "#6" in line)
        assert lines[at + 1].index("└─") == lines[at].index("★")
        assert "scripted · verifier" in lines[at + 1]

    async def test_width_and_controls(self, eight: dict[str, Any]) -> None:
        for trace in (eight, searched(), one(HOSTILE), one("長い" * 200), one("x" * 5000), one("a\r\nb\rc\u2028d")):
            text = tree(trace)
            assert all(columns(line) <= 110 for line in text.splitlines())
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
            text.encode("utf-8")

    async def test_long_trees_are_shortened_but_keep_what_matters(self) -> None:
        scores = [0.5] * 60
        scores[30], scores[33] = 1.0, float("nan")
        judge = Judge(*scores, asks=False)
        text = tree(await traced(n=60, model=Scripted(lambda i: (f"\\boxed{{{i}}}", 0.0)), verifier=judge))
        assert len(text.splitlines()) < 70
        assert "★ #30" in text and "✗ #33" in text and "#0 " in text and "#59" in text
        counts = [int(n) for n in re.findall(r"┄ (\d+) more", text)]
        assert sum(counts) + len(re.findall(r"[•★✗] #\d+", text)) == 60

    async def test_all_failed(self) -> None:
        events: dict[int, Mapping[str, Any]] = {}
        model = Scripted(lambda i: ("", 0.0), {i: [ServerFailed("500 broke")] for i in range(3)})
        with pytest.raises(AllCandidatesFailed):
            await solve(
                "p", model=model, verifier=Judge(1.0), strategy=BestOfN(n=3), attempts=1,
                listener=lambda e: events.update({e["id"]: e}),
            )  # fmt: skip
        trace = {"version": 1, "started": "", "events": [events[i] for i in sorted(events)]}
        text = tree(trace)
        assert text.splitlines()[0] == "p → nothing (failed)"
        assert "ended: it failed: AllCandidatesFailed: all 3 candidates failed" in text
        assert "3 failed" in text and text.count("✗ attempt 1") == 3
        read = check_safe(page(trace))
        assert any("No candidate was chosen: it failed: AllCandidatesFailed" in t for t in read.texts["p"])

    def test_search_tree(self) -> None:
        text = tree(searched())
        lineage = text[text.index("by descent") :].splitlines()
        assert [re.findall(r"[★▽•] #\d c\d", line)[0] for line in lineage[1:]] == [
            "• #0 c1",
            "▽ #2 c3",
            "★ #3 c4",
            "▽ #1 c2",
        ]
        assert [line.index("#") for line in lineage[1:]] == [5, 8, 8, 5]
        assert "▽ #1 c2  0.20 █░░░░  (pruned)" in text
        assert "steps 0.60 0.90" in text
        assert "level · 1.00 s from 0.00 s · depth=1, kept=['c1']" in text

    def test_scores_of_a_set_reach_their_candidates(self) -> None:
        trace = one("text")
        trace["events"][3]["score"] = None
        scores = [{"candidate": "c1", "score": 0.375}]
        trace["events"].append({"id": 6, "kind": "score_set", "parent": 0, "at": 1.0, "end": 1.2, "verifier": "pairs",
                                "n": 1, "scores": scores})  # fmt: skip
        assert "★ #0 c1  0.38 ██░░░" in tree(trace)
        assert "scored together by pairs" in tree(trace)


class TestPage:
    async def test_is_whole_and_self_contained(self, eight: dict[str, Any]) -> None:
        text = page(eight)
        read = check_safe(text)
        assert not re.search(r"https?://|src=", text)
        assert text.startswith("<!doctype html>")
        assert read.values("lang", "html") == ["en"]
        assert read.texts["title"][0] == "What is 17 * 23? · trace"
        assert {"main", "article", "header", "section", "figure", "figcaption", "table", "caption", "dl"} <= set(
            read.tags
        )
        assert "prefers-color-scheme: dark" in text and "width=device-width" in text

    async def test_policy_allows_its_own_style_and_script_only(self, eight: dict[str, Any]) -> None:
        text = page(eight)
        policy = next(v for v in Page(text).values("content", "meta") if "default-src" in v)
        assert policy.startswith("default-src 'none';") and "unsafe" not in policy
        for tag in ("style", "script"):
            body = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)
            assert body is not None
            digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy

    def test_contrast_of_both_themes(self) -> None:
        """Text against its ground is at least 4.5 to 1, as WCAG 2 AA has it."""

        def luminance(colour: str) -> float:
            digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
            parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
            red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue

        themes = [
            dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", page({}), re.S)
        ]
        assert len(themes) == 2
        for theme in themes:
            for ink in ("fg", "muted", "model", "verifier", "good", "bad"):
                for ground in ("bg", "card", "wash"):
                    light, dark = sorted((luminance(theme[ink]), luminance(theme[ground])), reverse=True)
                    least = 4.5 if ground == "bg" or ink in ("fg", "muted") else 3
                    assert (light + 0.05) / (dark + 0.05) >= least, (ink, ground)

    async def test_shows_candidates_losses_and_figures(self, eight: dict[str, Any]) -> None:
        text = page(eight)
        read = Page(text)
        assert read.has_class("candidate") == 7
        assert read.has_class("candidate") - read.values("class", "details").count("candidate chosen") == 6
        everything = " ".join(t for texts in read.texts.values() for t in texts)
        for part in ("InvalidScore: judge: score of candidate", "RateLimited: 429 slow down", "2 attempts", "of 600",
                     "its stop rule was met", "6 candidates, 1 failed, 1 cancelled", "only 0.25"):  # fmt: skip
            assert part in everything, part
        assert "\nso the answer is \\boxed{386}" in read.texts["pre"]
        assert [t.strip() for t in read.texts["th"]][-3:] == ["model", "verifier", "total"]

    async def test_timeline_has_a_bar_for_each_call(self, eight: dict[str, Any]) -> None:
        read = Page(page(eight))
        bars = read.values("class", "rect")
        assert bars.count("model") == 7 and bars.count("cancelled") == 1, "eight generations"
        assert bars.count("verifier") == 6 and bars.count("failed") == 1, "seven verifications"
        assert bars.count("failure") == 1
        for name in ("x", "width"):
            shares = [float(v[:-1]) for v in read.values(name, "rect") if v.endswith("%")]
            assert all(0 <= share <= 100.5 for share in shares)

    async def test_carries_its_trace(self, eight: dict[str, Any]) -> None:
        assert embedded(page(eight)) == [json.loads(json.dumps(eight))]

    def test_search_tree(self) -> None:
        read = check_safe(page(searched()))
        assert read.values("class", "li").count("at-pruned") == 4, "in the calls and in the search tree"
        assert read.has_class("winner") == 2, "the chosen one and its parent"
        assert read.values("class", "ol").count("steps") == 4

    def test_json_is_laid_out_without_a_change(self) -> None:
        text = '{"total": 418.00, "a": [], "b": {"k": "x, {y}: \\" z", "k": 1e400}, "long": [[1, 2], {"n": null}]}'
        laid = pretty(text)
        assert '\n  "total": 418.00,\n  "a": [],\n' in laid
        assert re.sub(r"\s", "", laid) == re.sub(r"\s", "", text)
        assert laid.splitlines()[-4:] == ["    [1, 2],", '    {"n": null}', "  ]", "}"]
        for other in ("no json", '{"cut": [1', "{'a': 1}", "[" * 100_000, '{\n"a": 1}', ""):
            assert pretty(other) == other


@pytest.mark.parametrize("render", [page, fragment, lambda t: pages([(HOSTILE, t), (HOSTILE, t)], HOSTILE, HOSTILE)])
class TestHostile:
    def test_candidate_text_stays_text(self, render: Callable[[Any], str]) -> None:
        text = render(one(HOSTILE))
        read = check_safe(text)
        assert text.count("<script") == text.count("</script>") and "<img" not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
        shown = visible(HOSTILE)
        assert "\n" + shown in read.texts["pre"]
        assert "‹U+0000›" in shown and "‹U+001B›[31m" in shown and "‹U+202E›" in shown and "‹U+D800›" in shown

    def test_data_cannot_end_its_block(self, render: Callable[[Any], str]) -> None:
        for text in ("</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028"):
            trace = one(text)
            assert all(t == trace for t in embedded(render(trace)))
            check_safe(render(trace))

    def test_hostile_fields_of_every_type(self, render: Callable[[Any], str]) -> None:
        values: list[Any] = [None, [], {}, {"a": [1]}, "x", -1, 1e308, float("nan"), True]
        for value in values:
            trace = one("text")
            for event in trace["events"][1:]:
                event.update({"at": value, "score": value, "step_scores": value, "seeds": None, "extra": value})
            check_safe(render(trace))
            tree(trace)


RENDERINGS: list[Callable[[Any], str]] = [tree, page, fragment, lambda t: pages([("one", t)], "title")]


@pytest.mark.parametrize("render", RENDERINGS)
class TestUnfinished:
    async def test_every_prefix_of_a_trace_renders(self, render: Callable[[Any], str], eight: dict[str, Any]) -> None:
        """As a viewer sees it while the solve runs: nothing has ended, and what follows is not there yet."""
        later = ("end", "usage", "chosen", "stopped", "answer", "score", "feedback", "error", "message")
        for count in range(len(eight["events"]) + 1):
            events = [{k: v for k, v in e.items() if k not in later} | {"end": None} for e in eight["events"][:count]]
            text = render({"version": 1, "started": eight["started"], "events": events})
            assert "running" in text or count == 0
            if render is not tree:
                check_safe(text)

    def test_orphans_and_cycles(self, render: Callable[[Any], str]) -> None:
        events = [{"id": 1, "kind": "request", "parent": 2}, {"id": 2, "kind": "wave", "parent": 1}, {"id": 3}, {}]
        events += [{"id": 10 + i, "kind": "chain", "parent": 9 + i, "at": i, "end": i + 1} for i in range(3000)]
        assert render is fragment or "chain" in render({"events": events})
        assert render({"events": events})
        nothing: list[dict[str, Any]] = [{}, {"events": None}, {"events": []}]
        for empty in nothing:
            assert render(empty)


class TestFragment:
    async def test_stands_inside_another_page(self, eight: dict[str, Any]) -> None:
        text = fragment(eight)
        read = check_safe(text)
        assert text.startswith('<div class="tts-trace">') and text.endswith("</div>")
        assert not set(read.tags) & {"html", "head", "body", "main", "script", "title", "h1"}
        assert read.values("id") == []
        rules = re.findall(r"([^{}]+)\{", "".join(read.texts["style"]))
        assert rules
        assert all(s.strip().startswith(".tts-trace") for rule in rules for s in rule.split(","))
        assert read.tags.count("tr") == 8, "a head and seven candidates"
        assert "386" in read.texts["bdi"] and read.has_class("tts-trace-chosen") == 1
        assert len(text) < 12_000

    def test_long_texts_do_not_fill_a_notebook(self) -> None:
        assert len(fragment(one("x" * 200_000))) < 20_000


class TestPages:
    async def test_table_links_and_filter(self, eight: dict[str, Any]) -> None:
        several = [("first", eight), ("second", searched()), ("third", one("x")), ("fourth", {"events": []})]
        text = pages(several, "Demo of 4", "A first part.\n\nAnd a second.")
        read = check_safe(text)
        assert read.texts["title"][0] == "Demo of 4" and read.tags.count("h1") == 1
        assert [v for v in read.values("href") if re.fullmatch(r"#t\d", v)] == ["#t0", "#t1", "#t2", "#t3"]
        assert {"first", "second", "third", "fourth"} <= set(read.texts["a"]) & set(read.texts["h2"])
        assert read.texts["label"] == ["all 4", "stop rule 1", "complete 2", "running 1"]
        assert read.has_class("o1") == 4, "two traces, each in the table and below it"
        assert "#f1:checked~.one:not(.o1)" in text
        assert [len(t["events"]) for t in embedded(text)] == [len(t["events"]) for _, t in several]

    def test_one_outcome_needs_no_filter(self) -> None:
        assert "input" not in Page(pages([("a", one("x"))], "t")).tags
        check_safe(pages([], "none"))
