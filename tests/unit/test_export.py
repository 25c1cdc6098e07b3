"""Training data: formats as TRL reads them, filters, repetitions, splits by problem, pools and stores, bad input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tts_plugins import Problem, SelfConsistency
from tts_plugins.bench import Plan, Progress, bench
from tts_plugins.bench.recording import ARM, Recorder
from tts_plugins.bench.training import FORMATS, Filters, export, pool_of, training_rows
from tts_plugins.cli import main
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.testing.scripted import ScriptedModel


def candidate(text: str | None, answer: str | None, score: float | None = None, **more: Any) -> PoolCandidate:
    return PoolCandidate(text=text, answer=answer, tokens=5, score=score, **more)


def pool(*problems: PoolProblem) -> Pool:
    return Pool(header=PoolHeader(model="m", dataset="d", verifier="v"), problems=problems)


def question(i: int, **more: Any) -> PoolProblem:
    return PoolProblem(
        id=f"p{i}", prompt=f"question {i}",
        candidates=(
            candidate(f"good {i}", "1", 0.9, correct=True),
            candidate(f"middling {i}", "1", 0.6, correct=True),
            candidate(f"bad {i}", "2", 0.2, correct=False),
            candidate(f"cut {i}", None, 0.1, correct=False, truncated=True),
        ),
        **more,
    )  # fmt: skip


def rows(source: Pool, format: Any, **filters: Any) -> list[dict[str, Any]]:
    return training_rows(source.problems, format, Filters(**filters), Counter())


USER = [{"role": "user", "content": "question 0"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("judge", "score", "left"), [("votes", None, 0), ("score", 0.5, 0), ("score", 1.0, 1), ("correct", None, 1)]
)
def test_different_answers_that_tie_are_no_winners(judge: Any, score: float | None, left: int) -> None:
    """At most one of them is right; full marks say that both are."""
    tied = tuple(candidate(f"text {answer}", answer, score, correct=True) for answer in ("1", "2"))
    one = pool(PoolProblem(id="p", prompt="question", candidates=tied))
    dropped: Counter[str] = Counter()
    assert len(training_rows(one.problems, "sft", Filters(judge=judge), dropped)) == left
    assert dropped["problems where different answers tie for the best"] == 1 - left


def test_each_format_has_the_columns_of_trl() -> None:
    one = pool(question(0))
    assert rows(one, "sft") == [{"prompt": USER, "completion": said("good 0")}]
    assert rows(one, "dpo") == [{"prompt": USER, "chosen": said("good 0"), "rejected": said("bad 0")}]
    assert rows(one, "kto") == [
        {"prompt": USER, "completion": said("good 0"), "label": True},
        {"prompt": USER, "completion": said("middling 0"), "label": True},
        {"prompt": USER, "completion": said("bad 0"), "label": False},
    ]
    steps = PoolProblem(id="s", prompt="question", candidates=(
        candidate("first\n\nsecond", "1", step_scores=(0.9, 0.2)), candidate("one step", "2", step_scores=(0.9, 0.2)),
    ))  # fmt: skip
    dropped: Counter[str] = Counter()
    assert training_rows([steps], "prm", Filters(), dropped) == [
        {"prompt": "question", "completions": ["first", "second"], "labels": [True, False]}
    ]
    assert dropped["candidates whose steps do not match their step scores"] == 1


def test_filters() -> None:
    one = pool(question(0))
    assert rows(one, "sft", min_score=0.95) == []
    assert rows(one, "sft", min_agreement=0.6) == []  # two of four gave it
    assert len(rows(one, "sft", min_agreement=0.5)) == 1
    assert rows(one, "dpo", min_margin=0.8) == [] and len(rows(one, "dpo", min_margin=0.7)) == 1
    assert [r["completion"][0]["content"] for r in rows(one, "kto", min_margin=0.5)] == ["good 0", "bad 0"]
    graded = rows(one, "sft", judge="correct", per_problem=5)
    assert [r["completion"][0]["content"] for r in graded] == ["good 0", "middling 0"]
    voted = rows(one, "dpo", judge="votes")
    assert voted[0]["chosen"] == said("good 0") and voted[0]["rejected"] == said("bad 0")
    assert rows(one, "sft", system="be brief")[0]["prompt"][0] == {"role": "system", "content": "be brief"}
    assert len(rows(one, "dpo", per_problem=9)) == 1  # the second best and the second worst are the same one


def test_candidates_of_the_same_answer_are_no_pair() -> None:
    same = PoolProblem(id="p", prompt="q", candidates=(candidate("a", "1", 0.9), candidate("b", "1", 0.1)))
    assert rows(pool(same), "dpo") == []
    code = PoolProblem(id="p", prompt="q", candidates=(candidate("a", None, 1.0), candidate("b", None, 0.0)))
    assert len(rows(pool(code), "dpo")) == 1  # without answers, as for programs, texts that differ are


def test_repetitions_are_left_out() -> None:
    twice = PoolProblem(id="p", prompt="q", candidates=(candidate("a", "1", 0.9), candidate(" a\n", "1", 0.9)))
    dropped: Counter[str] = Counter()
    again = PoolProblem(id="other", prompt=" q", candidates=twice.candidates)
    made = training_rows([twice, again], "sft", Filters(per_problem=3), dropped)
    assert len(made) == 1 and dropped == {"repeated candidates": 2, "repeated rows": 1}


def test_problems_stay_on_one_side_and_a_seed_gives_the_same_split(tmp_path: Path) -> None:
    many = pool(*[question(i) for i in range(30)], PoolProblem(id="x", prompt=" question 3", candidates=(
        candidate("another good", "1", 0.95), candidate("another bad", "2", 0.0),
    )))  # fmt: skip
    made = export(many, tmp_path / "a", format="kto", test_share=0.2, seed=1)
    sides = {}
    for name in ("train", "test"):
        lines = [json.loads(line) for line in (tmp_path / "a" / f"{name}.jsonl").read_text().splitlines()]
        sides[name] = {" ".join(row["prompt"][-1]["content"].split()) for row in lines}
        assert len(lines) == getattr(made, name)
    assert not sides["train"] & sides["test"] and len(sides["test"]) == 6 and made.problems == 30
    export(many, tmp_path / "b", format="kto", test_share=0.2, seed=1)
    assert (tmp_path / "a" / "train.jsonl").read_bytes() == (tmp_path / "b" / "train.jsonl").read_bytes()
    export(many, tmp_path / "a", format="sft", test_share=0)
    assert not (tmp_path / "a" / "test.jsonl").exists()  # nothing of an earlier export stays beside it
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["train.jsonl"]


@pytest.mark.parametrize(
    ("settings", "said_so"),
    [
        ({"judge": "gold"}, "judge='gold' is not known"), ({"min_margin": 2}, "min_margin=2 must be"),
        ({"min_agreement": math.nan}, "min_agreement=nan must be"), ({"min_score": "0.5"}, "min_score='0.5' must be"),
        ({"per_problem": 0}, "per_problem=0 must be"), ({"aggregate": "max"}, "aggregate='max' is not known"),
        ({"threshold": -1}, "threshold=-1 must be"),
    ],
)  # fmt: skip
def test_filters_that_are_not_filters_are_refused(settings: dict[str, Any], said_so: str) -> None:
    with pytest.raises(ConfigurationError, match=said_so):
        Filters(**settings)


@pytest.mark.parametrize(
    ("setting", "said_so"),
    [({"filters": {"judge": "votes"}}, "filters=.* must be Filters"), ({"seed": []}, r"seed=\[\] must be"),
     ({"out": 5}, "5 is not a path"), ({"source": None}, "None is not a path"), ({"format": ["sft"]}, "format=")],
)  # fmt: skip
def test_arguments_of_another_kind_are_refused(setting: dict[str, Any], said_so: str, tmp_path: Path) -> None:
    given = {"source": pool(question(1)), "out": tmp_path, "format": "sft"}
    with pytest.raises(ConfigurationError, match=said_so):
        export(**{**given, **setting})


def test_bad_sources_say_what_is_wrong(tmp_path: Path) -> None:
    for bad in (1, -0.1, math.nan, True, "0.1"):
        with pytest.raises(ConfigurationError, match="test_share="):
            export(pool(question(0)), tmp_path, format="sft", test_share=bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="format='rlhf' is not known; use one of sft, dpo, kto, prm"):
        export(pool(question(0)), tmp_path, format="rlhf")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="there are no problems"):
        export(pool(), tmp_path / "none", format="sft")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigurationError, match="1 problems without a pair"):
        export(pool(question(0)), tmp_path / "none", format="dpo", filters=Filters(min_margin=1.0))
    with pytest.raises(ConfigurationError, match="not one of the 1 candidates has a grade"):
        export(pool(PoolProblem(id="p", prompt="q", candidates=(candidate("a", "1"),))), tmp_path, format="sft",
               filters=Filters(judge="correct"))  # fmt: skip
    with pytest.raises(DataError, match="there is no such file"):
        export(tmp_path / "absent", tmp_path, format="sft")
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(DataError, match="junk"):
        export(tmp_path / "junk", tmp_path, format="sft")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        export(pool(question(0)), tmp_path / "file", format="sft", test_share=0)
    bare = PoolProblem(id="p", prompt=None, candidates=(candidate("a", "1", 0.5),))
    with pytest.raises(ConfigurationError, match="1 problems without a prompt on record"):
        export(pool(bare), tmp_path / "none", format="sft")


def test_texts_that_utf8_cannot_hold_are_written(tmp_path: Path) -> None:
    odd = PoolProblem(id="p", prompt="q \ud800", candidates=(candidate("\udfff a\u2028b", "1", 0.9),))
    export(pool(odd), tmp_path, format="sft", test_share=0)
    (line,) = (tmp_path / "train.jsonl").read_text().split("\n")[:-1]
    assert json.loads(line)["completion"][0]["content"] == "? a\u2028b"


def asked(count: int) -> list[Problem]:
    return [Problem(f"question {i}", id=f"p{i}", metadata={"answer": "1"}) for i in range(count)]


async def test_a_store_is_exported_whether_it_has_ended_or_not(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    model = ScriptedModel(["answer: 1", "answer: 2", "answer: 1"])
    plan = Plan(problems=asked(3), strategies={"votes": SelfConsistency(n=3)}, model=model)
    with plan.open(path) as store:
        with pytest.raises(ConfigurationError, match="no row"):
            export(path, tmp_path / "out", format="sft")  # nothing has ended yet
        with contextlib.suppress(asyncio.CancelledError):
            await bench(plan, store, concurrency=1, on_solve=_stop_after_two)
        made = export(path, tmp_path / "out", format="dpo", filters=Filters(judge="correct"), test_share=0)
        assert made.train == 2  # while it is still open, and half done
        await bench(plan, store, concurrency=1)
    made = export(path, tmp_path / "out", format="dpo", filters=Filters(judge="correct"), test_share=0)
    assert made.train == 3
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert row["chosen"] == said("answer: 1") and row["rejected"] == said("answer: 2")
    assert row["prompt"] == [{"role": "user", "content": "question 0"}]


def _stop_after_two(progress: Progress) -> None:
    if progress.done == 2:
        raise asyncio.CancelledError


async def test_a_store_of_a_replay_says_that_its_texts_stand_in_the_pool(tmp_path: Path) -> None:
    source = pool(*[question(i) for i in range(4)])
    plan = Plan(problems=[p.problem() for p in source.problems], strategies={"votes": SelfConsistency(n=3)},
                model=source)  # fmt: skip
    with plan.open(tmp_path / "replay.sqlite") as store:
        await bench(plan, store)
    with pytest.raises(DataError, match="export that pool"):
        export(tmp_path / "replay.sqlite", tmp_path / "out", format="sft")


def test_the_command(tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "pool.jsonl.gz"
    pool(*[question(i) for i in range(10)]).write(source)
    for format in FORMATS[:3]:
        assert main(["export", str(source), "--format", format, "--out", str(tmp_path / format), "--json"]) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["problems"] == 10 and "left out: 10 truncated candidates" in shown.err
    assert main(["export", str(source), "--format", "x", "--out", str(tmp_path)]) == 2
    assert main(["export", str(source), "--format", "sft", "--out", str(tmp_path), "--judge", "gold"]) == 2
    assert pool_of(source).fewest == 4


TALK = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "And now?"},
]  # fmt: skip


async def test_a_conversation_is_exported_whole_from_stores_and_from_recordings(tmp_path: Path) -> None:
    other = [{**TALK[0], "content": "Be kind."}, *TALK[1:]]  # the last message is the same
    problems = [Problem(talk, id=f"p{i}", metadata={"answer": "1"}) for i, talk in enumerate((TALK, other))]
    plan = Plan(problems=problems, strategies={"samples": SelfConsistency(n=2)},
                model=ScriptedModel(["answer: 1", "answer: 2"]))  # fmt: skip
    with plan.open(tmp_path / "bench.sqlite") as store:
        await bench(plan, store)
        recorded = Recorder(dataset="d").pool(_as_recording(store))
    recorded.write(tmp_path / "pool.jsonl.gz")
    for source in (tmp_path / "bench.sqlite", tmp_path / "pool.jsonl.gz"):
        made = export(source, tmp_path / "out", format="sft", filters=Filters(judge="correct"), test_share=0.5)
        assert (made.train, made.test) == (1, 1), "two conversations, each on its side"
        written = [json.loads(line) for path in made.files for line in path.read_text(encoding="utf-8").splitlines()]
        assert sorted((row["prompt"] for row in written), key=str) == [TALK, other]
        assert all(row["completion"] == said("answer: 1") for row in written)


def _as_recording(store: Any) -> Any:
    """The store's solves as those of a recording."""
    kept, rows = store.solves(), store.candidates()
    return SimpleNamespace(
        config={"model": "m", "verifier": None, "sampling": {}}, solves=lambda: kept, problems=store.problems,
        candidates=lambda: {(p, ARM, 0): found for (p, _, _), found in rows.items()},
    )  # fmt: skip


def test_a_candidate_without_a_score_does_not_change_the_judge(tmp_path: Path) -> None:
    first = question(0)
    bare = PoolProblem(id="p0", prompt="question 0", candidates=(*first.candidates[:2], candidate("odd", "2")))
    made = export(pool(bare, question(1)), tmp_path, format="dpo", filters=Filters(min_margin=0.2))
    assert made.judge == "score" and made.dropped["candidates without a score on record"] == 1
    bare = PoolProblem(id="p", prompt="q", candidates=tuple(candidate(text, "12"[text == "c"]) for text in "abc"))
    votes = export(pool(bare), tmp_path, format="dpo")
    assert votes.judge == "votes"


def test_steps_are_cut_as_the_verifier_cut_them() -> None:
    scores = (0.9, 0.2)
    lines = PoolProblem(id="p", prompt="q", candidates=(
        PoolCandidate(text="First.\nThen.", answer="1", step_scores=scores),
        PoolCandidate(text="One.\n\nTwo.", answer="1", step_scores=scores),
        PoolCandidate(text="One, two, three.", answer="1", step_scores=scores),
        PoolCandidate(text="Nothing.", answer="1"),
    ))  # fmt: skip
    dropped: Counter[str] = Counter()
    made = training_rows([lines], "prm", Filters(judge="votes"), dropped)
    assert [row["completions"] for row in made] == [["First.", "Then."], ["One.", "Two."]]
    assert all(row["labels"] == [True, False] for row in made)
    assert dropped == {"candidates whose steps do not match their step scores": 1, "candidates without step scores": 1}
