from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tts_plugins import BestOfN, Budget, Problem, SelfConsistency
from tts_plugins.bench.analysis.arm import Costs
from tts_plugins.bench.analysis.matched import SHARES, Larger, matches
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.report import Placing, Run, _charts, _drawings, as_dict, load, page, picture, png_of
from tts_plugins.bench.runner import bench
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.errors import ConfigurationError, DataError, MissingExtraError
from tts_plugins.stopping import VoteLead
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Scored
from tts_plugins.verifiers.recorded import RecordedVerifier

POOL = synthetic_pool(12, 8)
ODD = "</script><script>alert(1)</script>"


class Chooser:
    """A policy: votes on every other problem, one answer on the rest; it says so in the trace."""

    async def __call__(self, run: Any, problem: Problem) -> Scored:
        strategy = SelfConsistency(n=4 if int((problem.id or "p0")[1:]) % 2 else 1)
        run.note("policy", chosen_strategy=f"self_consistency(n={strategy.n})")
        return await strategy(run, problem)


@pytest.fixture
async def stored(tmp_path: Path) -> Path:
    plan = Plan(
        problems=[replace_text(p.problem()) for p in POOL.problems],
        strategies={"one": SelfConsistency(n=1), ODD: BestOfN(n=8), "lead": SelfConsistency(n=8, stop=VoteLead(2)),
                    "policy": Chooser()},
        model=POOL, verifier=RecordedVerifier(), seeds=range(3), budgets={"": None, "calls=2": Budget(calls=2)},
    )  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        await bench(plan, store)
    return tmp_path / "run"


def replace_text(problem: Problem) -> Problem:
    return replace(problem, metadata={**problem.metadata, "level": ODD})


def opened(path: Path) -> Run:
    with Store.read(path) as store:
        return load(store)


class Reader(HTMLParser):
    """What a page refers to, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def test_the_page_is_whole_and_needs_nothing_else(stored: Path) -> None:
    text = page(opened(stored), Placing(costs=Costs(parameters=1e8), larger=Larger.of_pool(POOL, 1e9)))
    reader = Reader()
    reader.feed(text)
    assert reader.links == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert "default-src 'none'" in unescape(text)
    assert reader.tags.count("script") == 1 and ODD not in text  # the house's own; a name is not markup
    said = " ".join(reader.texts)
    for part in ("Accuracy against compute", "Accuracy by difficulty", "What became of the solves", "When they stopped",
                 "What G chose", "Figures", "Choosing among the candidates", "pass@k", "How they ended",
                 "Beside one answer of synthetic", "Configuration", "self_consistency(n=4)"):  # fmt: skip
        assert part in said, part
    assert "NaN" not in text and "nan" not in said.split()


async def test_pictures_are_drawn(stored: Path) -> None:
    svg = picture(opened(stored))
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and "var(" not in svg
    titles = [e.text for e in root.iter() if e.get("class") == "title"]
    assert titles[:2] == ["Accuracy against compute", "Accuracy by difficulty"]
    # It stands alone: what its colours mean and what its lines are is written in it, as on the page.
    said = " ".join(e.text or "" for e in root.iter() if e.get("class") == "label")
    for part in ("wrong, though a right answer was there", "self_consistency(n=4)", "the frontier", "dot: the mean"):
        assert part in said, part
    filled = [e.get("class") for e in root.iter() if e.get("class") in ("part right", "part wrongly")]
    assert len(filled) > filled.count("part right") > 1
    if importlib.util.find_spec("resvg_py") is None:
        with pytest.raises(MissingExtraError, match=r"tts-plugins\[bench\]"):
            png_of(svg)
    else:
        assert png_of(svg).startswith(b"\x89PNG")


async def test_as_data(stored: Path) -> None:
    found = as_dict(opened(stored), Placing(costs=Costs(parameters=1e8), larger=Larger.of_pool(POOL, 1e9)))
    assert (found["done"], found["of"]) == (8 * 12 * 3, 8 * 12 * 3)
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert arms["one"]["candidates"]["value"] == 1 and arms["one"]["pass_at"].keys() == {1}
    assert arms[ODD]["pass_at"][8] == pytest.approx(arms[ODD]["selections"]["any"])
    assert arms["lead"]["pass_at"] == {}  # how many there are depends on what they say
    assert arms[ODD]["flops"]["value"] == pytest.approx(2e8 * arms[ODD]["tokens"]["value"])
    assert sum(arms[ODD]["outcomes"].values()) == pytest.approx(1)
    assert arms[ODD]["outcomes"]["right"] == pytest.approx(arms[ODD]["accuracy"]["value"])
    assert [m["inference_share"] for m in found["matched_flops"]] == list(SHARES)


def test_nothing_done_yet_is_said(tmp_path: Path) -> None:
    plan = Plan(problems=[p.problem() for p in POOL.problems], strategies={"one": SelfConsistency(n=1)}, model=POOL)
    plan.open(tmp_path / "run").close()
    with pytest.raises(DataError, match="no solve has ended yet"):
        opened(tmp_path / "run")


# Figures on rows that are counted by hand


def solve(problem: str, arm: str, correct: bool | None, tokens: int = 100, **rest: Any) -> SolveRow:
    fields = {"answer": "a", "score": None, "chosen": 0, "stopped": "complete", "calls": 1, "seed": 0}
    return SolveRow(
        **{**fields, "problem": problem, "arm": arm, "correct": correct, "completion_tokens": tokens, **rest}
    )


def summary(solves: list[SolveRow], candidates: dict[Any, list[CandidateRow]] | None = None) -> Summary:
    names = sorted({s.problem for s in solves})
    arms = list(dict.fromkeys(s.arm for s in solves))
    return Summary.of_rows(arms, [0], [ProblemRow(id=n) for n in names], solves, candidates or {})


def test_the_frontier_has_what_nothing_beats_for_less() -> None:
    rights = {"cheap": (1, 0, 0), "same": (1, 0, 0), "dear": (1, 1, 0), "dearest": (1, 0, 0)}
    costs = {"cheap": 10, "same": 20, "dear": 30, "dearest": 40}
    rows = [solve(f"p{i}", arm, bool(r), costs[arm]) for arm, right in rights.items() for i, r in enumerate(right)]
    assert [a.name for a in summary(rows).frontier(lambda a: a.tokens.value)] == ["cheap", "dear"]


def test_outcomes_tell_a_wrong_choice_from_none_to_choose() -> None:
    rows = [solve(p, "arm", p == "right") for p in ("right", "chosen", "absent", "cut")]
    rows.append(solve("failed", "arm", False, chosen=None, answer=None, error="x", stopped="failed"))
    wrong, right = CandidateRow(place=0, answer="b", correct=False), CandidateRow(place=1, answer="a", correct=True)
    cut = replace(wrong, truncated=True)
    candidates = {("right", "arm", 0): [right], ("chosen", "arm", 0): [wrong, right],
                  ("absent", "arm", 0): [wrong, cut], ("cut", "arm", 0): [cut, cut]}  # fmt: skip
    arm = summary(rows, candidates).arms[0]
    assert set(arm.outcomes().values()) == {0.2}
    assert arm.truncated == pytest.approx(3 / 7)
    assert arm.selections()["any"] == 0.4, "the failed one had none"
    assert arm.selections()["best"] is None


def test_the_page_marks_what_the_figures_do_not_say() -> None:
    rows = [solve(p, arm, True, exact=arm != "bound") for p in "ab" for arm in ("counted", "bound")]
    config = {"model": "m", "seeds": [0]}
    text = page(Run(config=config, summary=summary(rows)))
    assert ">≤100<" in text and ">100<" in text
    assert "≤: the server did not count some" in text and "≤400 tokens" in text
    assert "Without an interval" not in text and "1.000 to 1.000" in text
    text = page(Run(config=config, summary=summary([solve("a", "one", True), solve("b", "one", None)])))
    assert "Without an interval: one problem was graded" in text and "1.000 to" not in text
    assert "1 of 2 problems have no answer and are not counted" in text and "≤" not in text


def test_problems_are_binned_by_the_share_of_right_candidates() -> None:
    rows = [solve(f"p{i}", "arm", i < 6) for i in range(9)]
    candidates = {(f"p{i}", "arm", 0): [CandidateRow(place=k, answer="a", correct=k < 9 - i) for k in range(9)]
                  for i in range(9)}  # fmt: skip
    found = summary(rows, candidates)
    assert found.bins() == [("p0", "p1", "p2"), ("p3", "p4", "p5"), ("p6", "p7", "p8")]
    assert found.ease["p8"] == pytest.approx(1 / 9)


def test_the_small_model_is_matched_at_the_larger_one_s_flops() -> None:
    rows = [solve(f"p{i}", arm, right, tokens) for i in range(4)
            for arm, right, tokens in (("one", False, 100), ("eight", i < 2, 800), ("many", True, 6400))]  # fmt: skip
    larger = Larger(name="L", parameters=10e9, correct={f"p{i}": [float(i == 0)] for i in range(4)}, tokens=100)
    found = {m.share: m for m in matches(summary(rows), Costs(parameters=1e9), larger)}
    # M = 10: 10 times the tokens for inference alone; 10 + 27 / 0.79 = 44.2 and 10 + 27 / 0.16 = 178.75 otherwise.
    assert {share: m.arm for share, m in found.items()} == {None: "eight", 22.0: "eight", 0.79: "eight", 0.16: "many"}
    assert found[None].allowed == 2e9 * 1000
    assert found[0.16].allowed == pytest.approx(2e9 * 17875)
    assert found[None].difference is not None and found[None].difference.value == pytest.approx(0.25)
    with pytest.raises(ConfigurationError, match="swap the two models"):
        matches(summary(rows), Costs(parameters=20e9), larger)
    with pytest.raises(DataError, match="no problem in common"):
        matches(summary(rows), Costs(parameters=1e9), replace(larger, correct={"q": [1.0]}))
    for prompts, bare in ((True, "one"), (False, "L")):  # `solve` counts no prompts
        counted = [replace(row, prompt_tokens=0 if prompts else 9) for row in rows]
        with pytest.raises(DataError, match=rf"those of {bare} do not, since its pool has null for prompt_tokens"):
            matches(summary(counted), Costs(parameters=1e9), replace(larger, prompts=prompts))


def test_a_larger_model_needs_grades_and_tokens() -> None:
    bare = replace(POOL, problems=(replace(POOL.problems[0], candidates=(
        replace(POOL.problems[0].candidates[0], tokens=None),)),))  # fmt: skip
    with pytest.raises(DataError, match=r"problem 'p0', candidates\[0\], tokens: is null"):
        Larger.of_pool(bare, 1e9)
    assert Larger.of_pool(POOL, 1e9).prompts is False
    some = replace(POOL, problems=(replace(POOL.problems[0], prompt_tokens=50), *POOL.problems[1:]))
    with pytest.raises(DataError, match="prompt_tokens are known of some problems only"):
        Larger.of_pool(some, 1e9)


def test_what_has_no_answer_is_counted_nowhere_and_a_failed_solve_is_wrong() -> None:
    lost = {"answer": None, "chosen": None, "stopped": "failed", "error": "InvalidScore: nan"}
    rows = [solve("a", "one", True), solve("b", "one", False), solve("c", "one", None),
            solve("a", "two", True), solve("b", "two", False, **lost), solve("c", "two", False, **lost)]  # fmt: skip
    found = summary(rows)
    one, two = found.arms
    assert found.ungraded == ["c"] and len(two.failed) == 2
    assert [a.accuracy.value for a in found.arms if a.accuracy is not None] == [0.5, 0.5]
    assert one.outcomes()["right"] == two.outcomes()["right"] == two.outcomes()["failed"] == 0.5
    assert two.over(one).value == 0 and Larger.of_arm(one, "L", 1e9).correct == {"a": [1.0], "b": [0.0]}
    bare = summary([solve("a", "one", None), solve("a", "two", True)])
    assert bare.arms[1].gain(bare.arms[0]) is None
    with pytest.raises(DataError, match="no graded problem in common"):
        bare.arms[1].over(bare.arms[0])


def test_one_bin_of_difficulty_is_not_called_the_easiest_and_no_line_ends_beyond_a_mark() -> None:
    assert [_drawings.bin_name(i, 1) for i in range(1)] == ["all"]
    assert [_drawings.bin_name(i, 3) for i in range(3)] == ["easiest", "2", "hardest"]
    drawn = str(_charts.spreads([_charts.Spread(arm=0, quantiles=[1, 2, 3, 5, 7], mean=3.5)], "samples"))
    assert ">8<" in drawn
