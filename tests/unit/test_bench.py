from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import BeamSearch, BestOfN, Budget, ComputeOptimal, Problem, Revision, SelfConsistency
from tts_plugins.bench import replay
from tts_plugins.bench.analysis.summary import Summary
from tts_plugins.bench.plan import Plan
from tts_plugins.bench.recording import ARM, Recorder, Samples
from tts_plugins.bench.runner import Progress, bench
from tts_plugins.bench.storage.store import Store
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, ConnectionFailed, DataError, ModelNotFound
from tts_plugins.policies import Plan as OptimalPlan
from tts_plugins.pools import Pool
from tts_plugins.stopping import VoteLead
from tts_plugins.testing import ScriptedModel, ScriptedReviseModel, ScriptedStepModel, TableVerifier
from tts_plugins.testing.synthetic import synthetic_pool
from tts_plugins.types import Reply
from tts_plugins.verifiers.recorded import RecordedVerifier

POOL = synthetic_pool(8, 8)
STRATEGIES = {"votes": SelfConsistency(n=5), "best": BestOfN(n=5), "lead": SelfConsistency(n=8, stop=VoteLead(2))}


def on_pool(**changes: Any) -> Plan:
    fields = {"problems": [p.problem() for p in POOL.problems], "strategies": STRATEGIES, "model": POOL,
              "verifier": RecordedVerifier(), "seeds": range(4)}  # fmt: skip
    return Plan(**{**fields, **changes})


def asked(count: int = 4) -> list[Problem]:
    return [Problem(f"What is {i} + {i}?", id=f"p{i}", metadata={"answer": str(2 * i)}) for i in range(count)]


class Stop(Exception):
    """Ends a benchmark in its middle, as a kill does."""


def stopping_after(solves: int) -> Any:
    def look(progress: Progress) -> None:
        if progress.fresh == solves:
            raise Stop

    return look


def summary_of(store: Store) -> Summary:
    config = store.config
    return Summary.of_rows(list(config["arms"]), config["seeds"], store.problems(), store.solves(), store.candidates())


async def test_it_measures_what_a_replay_measures(tmp_path: Path) -> None:
    plan = on_pool()
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store)
        found = summary_of(store)
    assert found.done == found.of == 3 * 8 * 4
    for arm in found.arms:
        by_replay = await replay(POOL, STRATEGIES[arm.name], RecordedVerifier(), orders=4)
        assert arm.accuracy is not None
        assert arm.accuracy.value == pytest.approx(by_replay.accuracy.value)
        assert arm.tokens.value == pytest.approx(by_replay.tokens.value)


async def test_starting_again_does_the_rest_only_and_comes_to_the_same(tmp_path: Path) -> None:
    plan = on_pool()
    with plan.open(tmp_path / "whole") as store:
        await bench(plan, store)
        whole = [replace(s, seconds=0.0) for s in store.solves()]
    done = 0
    for stop in (10, 30, 7):
        with plan.open(tmp_path / "run") as store, pytest.raises(Stop):
            await bench(plan, store, on_solve=stopping_after(stop))
        with Store.read(tmp_path / "run") as store:
            assert len(store.done()) >= done + stop
            done = len(store.done())
    seen: list[Progress] = []
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store, on_solve=seen.append)
        assert [replace(s, seconds=0.0) for s in store.solves()] == whole
    assert len(seen) == len(whole) - done
    assert (seen[-1].done, seen[-1].of, seen[-1].left) == (len(whole), len(whole), 0.0)
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store, on_solve=stopping_after(1))  # nothing is left to do


class Failing:
    """A model that works for some calls, then says that it does not exist any more."""

    def __init__(self, inner: Any, calls: int) -> None:
        self.name, self.limits, self.batch = inner.name, inner.limits, 1
        self.inner, self.left, self.seeds = inner, calls, list[int | None]()

    async def bound(self, problem: Problem) -> Any:
        return await self.inner.bound(problem)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        if self.left == 0:
            raise ModelNotFound("gone")
        self.left -= 1
        self.seeds += seeds
        reply: Reply = await self.inner.generate(problem, seeds)
        return reply


async def test_a_solve_that_was_cut_goes_on_with_the_replies_it_has(tmp_path: Path) -> None:
    asking: list[int | None] = []
    for calls in (9, 2, 100):
        model = Failing(ScriptedModel(["2", "4", "6", "The answer is 4"]), calls)
        plan = Plan(problems=asked(), strategies={"votes": SelfConsistency(n=6, stop=VoteLead(6), wave=1)}, model=model)
        with plan.open(tmp_path / "run") as store:
            if calls < 100:
                with pytest.raises(ModelNotFound):
                    await bench(plan, store, concurrency=1)
            else:
                assert await bench(plan, store, concurrency=1)
                solves = store.solves()
        asking += model.seeds
    assert len(asking) == len(set(asking)) == 4 * 6  # each candidate was asked for once, in three starts
    assert [s.calls for s in solves] == [6] * 4  # and what was paid in an earlier start is in its solve's account
    with sqlite3.connect(tmp_path / "run") as db:
        assert db.execute("SELECT count(*) FROM replies").fetchone() == (0,)
    db.close()


async def test_a_server_that_is_down_ends_it_and_spoils_nothing(tmp_path: Path) -> None:
    for script, ends in ((["4", "4", ConnectionFailed("refused", refused=True)], True), (["4"], False)):
        plan = Plan(problems=asked(3), strategies={"one": SelfConsistency(n=1)}, model=ScriptedModel(script))
        with plan.open(tmp_path / "run") as store:
            if ends:
                with pytest.raises(AllCandidatesFailed, match="refused"):
                    await bench(plan, store, concurrency=1, attempts=1)
            assert ends or await bench(plan, store, concurrency=1)
            assert [s.stopped for s in store.solves()] == ["complete"] * (2 if ends else 3)


async def test_revisions_are_written_down_too(tmp_path: Path) -> None:
    for start in range(2):
        model = ScriptedReviseModel(["2"], lambda problem, history, number: f"The answer is {number}.")
        plan = Plan(problems=asked(2), strategies={"revised": Revision(chains=1, rounds=3)}, model=model,
                    verifier=TableVerifier({}, default=0.5))  # fmt: skip
        with plan.open(tmp_path / "run") as store:
            if start == 0:
                with pytest.raises(Stop):
                    await bench(plan, store, concurrency=1, on_solve=stopping_after(1))
            else:
                assert await bench(plan, store, concurrency=1)
                assert [len(rows) for rows in store.candidates().values()] == [3, 3]
        assert len(model.requests) == 3  # one problem's first answer and its two revisions, at each start


async def test_steps_are_written_down_too(tmp_path: Path) -> None:
    model = ScriptedStepModel({"": ["a step"], "a step": ["The answer is 2."]})
    plan = Plan(problems=asked(2)[1:], strategies={"beams": BeamSearch(n=2, beam_width=2, max_steps=3)}, model=model,
                verifier=TableVerifier({"a step": [0.5]}, default=[0.5, 0.9]))  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store)
        (solve,) = store.solves()
        assert (solve.stopped, solve.error, solve.correct) == ("complete", None, True)


async def test_a_solve_without_an_answer_is_a_row_with_its_cause(tmp_path: Path) -> None:
    plan = Plan(problems=asked(2), strategies={"best": BestOfN(n=2)}, model=ScriptedModel(["4"]),
                verifier=TableVerifier({}))  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store)
        rows = store.solves()
        assert [(s.stopped, s.correct, s.chosen) for s in rows] == [("failed", False, None)] * 2
        assert all(s.error is not None and s.error.startswith("AllCandidatesFailed") for s in rows)
        assert all(s.calls == 2 for s in rows)
        assert summary_of(store).arms[0].outcomes()["failed"] == 1.0


async def test_the_whole_run_s_budget_ends_it_and_more_of_it_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel(["4"])
    plan = Plan(problems=asked(6), strategies={"votes": SelfConsistency(n=4)}, model=model,
                budgets={"": None, "calls=2": Budget(calls=2)})  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        assert not await bench(plan, store, total=Budget(calls=17), concurrency=2)
        kept = store.solves()
        assert sum(s.calls for s in kept) <= 17
        # A solve that the whole's budget cut short is not kept as if its own strategy had stopped there.
        assert all(s.calls == (2 if s.arm.endswith("calls=2") else 4) for s in kept)
        # Its own is: that ends the solve, and not the run.
        assert {s.stopped for s in kept if s.arm.endswith("calls=2")} == {"budget"}
    with plan.open(tmp_path / "run") as store:
        assert not await bench(plan, store, total=Budget(calls=17))
        assert await bench(plan, store, total=Budget(calls=40))
        assert len(store.solves()) == 12 and sum(s.calls for s in store.solves()) == 36


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": range(3)}, r"seeds was \[0, 1, 2, 3\] and is \[0, 1, 2\]"),
        ({"strategies": {**STRATEGIES, "votes": SelfConsistency(n=6)}}, "arms.votes.strategy.n was 5 and is 6"),
        ({"strategies": {"votes": SelfConsistency(n=5)}}, "give another --out, .*; strategies left out: best, lead$"),
        ({"strategies": {**STRATEGIES, "new": SelfConsistency(n=5)}}, "configuration: give .*; strategies added: new$"),
        ({"verifier": None}, r'verifier was "RecordedVerifier\(last\)" and is null'),
        ({"model": synthetic_pool(8, 8, seed=1)}, "pool was"),
        ({"problems": [p.problem() for p in POOL.problems[1:]]}, "problem 'p0' is left out"),
        ({"budgets": {"": Budget(calls=3)}}, 'arms.votes.budget was null and is {"calls": 3}'),
        ({"settings": {"sampling": {"temperature": 1}}}, "sampling was null and is"),
    ],
)
async def test_a_changed_configuration_is_refused_and_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with on_pool().open(tmp_path / "run") as store, pytest.raises(Stop):
        await bench(on_pool(), store, on_solve=stopping_after(1))
    on_pool().open(tmp_path / "run").close()
    with pytest.raises(ConfigurationError, match=said):
        on_pool(**change).open(tmp_path / "run")


async def test_it_goes_on_with_more_problems_and_names_those_that_changed(tmp_path: Path) -> None:
    few, more = ([p.problem() for p in POOL.problems[:k]] for k in (2, 4))
    with on_pool(problems=few).open(tmp_path / "run") as store:
        await bench(on_pool(problems=few), store)
        solves = store.solves()
    with on_pool(problems=more).open(tmp_path / "run") as store:
        assert [p.id for p in store.problems()] == [p.id for p in more] and store.solves() == solves
        await bench(on_pool(problems=more), store)
        assert len(store.solves()) == 2 * len(solves)
    other = Problem("another?", id="p0")
    others = [other, *more[1:3], POOL.problems[4].problem(), POOL.problems[5].problem()]
    said = r"problem 'p4' is new \(and 1 more\); problem 'p3' is left out; problem 'p0' has changed$"
    with pytest.raises(ConfigurationError, match=said):
        on_pool(problems=others).open(tmp_path / "run")


async def test_a_policy_that_asks_too_much_of_a_pool_is_told_its_budget(tmp_path: Path) -> None:
    policy = ComputeOptimal(plans=(OptimalPlan(budget=99, fixed=SelfConsistency(n=99)),))
    plan = on_pool(strategies={"policy": policy})
    with plan.open(tmp_path / "run") as store, pytest.raises(ConfigurationError, match=r"has; give it a budget=8, or"):
        await bench(plan, store)


async def test_a_strategy_that_was_never_right_is_not_on_the_frontier(tmp_path: Path) -> None:
    never = on_pool(grade=lambda problem, candidate: False)
    with never.open(tmp_path / "run") as store:
        await bench(never, store)
        assert summary_of(store).frontier(lambda arm: arm.tokens.value) == []


def test_only_one_writes_and_others_read(tmp_path: Path) -> None:
    with on_pool().open(tmp_path / "run"):
        with pytest.raises(ConfigurationError, match="another process is writing"):
            on_pool().open(tmp_path / "run")
        with Store.read(tmp_path / "run") as other:
            assert other.config["model"] == "synthetic"
    on_pool().open(tmp_path / "run").close()


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        Store.read(tmp_path / "none")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(DataError, match="not a file of this kind"):
        Store.read(tmp_path / "text")
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("CREATE TABLE about (key TEXT, value TEXT)")
        about = {"format": "tts-bench", "version": 99, "config": {}}
        db.executemany("INSERT INTO about VALUES (?, ?)", [(k, json.dumps(v)) for k, v in about.items()])
    db.close()
    with pytest.raises(DataError, match="version=99 is newer than 3"):
        Store.read(tmp_path / "newer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"problems": []}, "problems is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"problems": [Problem("a")]}, "problems need ids"),
        ({"problems": [Problem("a", id="x"), Problem("b", id="x")]}, "problems need ids"),
    ],
)
def test_a_plan_of_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        on_pool(**change)


async def test_more_samples_than_a_pool_has_are_refused(tmp_path: Path) -> None:
    plan = on_pool(strategies={"many": SelfConsistency(n=9)})
    with plan.open(tmp_path / "run") as store, pytest.raises(ConfigurationError, match="more samples than problem"):
        await bench(plan, store)


async def test_a_refused_plan_has_no_claim_on_its_file(tmp_path: Path) -> None:
    plan = on_pool(strategies={"one": SelfConsistency(n=1), "many": SelfConsistency(n=9)})
    with plan.open(tmp_path / "run") as store:
        with pytest.raises(ConfigurationError, match="more samples than problem"):
            await bench(plan, store, concurrency=1)
        assert not store.done()
    fixed = on_pool(strategies={"one": SelfConsistency(n=1), "many": SelfConsistency(n=8)}, problems=plan.problems[:3])
    with fixed.open(tmp_path / "run") as store:
        assert await bench(fixed, store)
        assert len(store.problems()) == 3 and store.config["arms"]["many"]["strategy"]["n"] == 8


async def test_a_recording_is_a_pool_that_replays(tmp_path: Path) -> None:
    model = ScriptedModel(["4", "The answer is 2.", "nothing to be read here at all, sorry"])
    plan = Plan(problems=asked(3), strategies={ARM: Samples(n=3)}, model=model,
                settings={"sampling": {}}, verifier=TableVerifier({"4": 0.0}, default=0.75))  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store)
        pool = Recorder(dataset="sums", extra={"p1": {"source": "book"}}).pool(store)
    pool.write(tmp_path / "pool.gz")
    assert Pool.read(tmp_path / "pool.gz") == pool
    assert (pool.header.model, pool.header.dataset, pool.fewest) == (model.name, "sums", 3)
    assert pool.problems[1].extra == {"source": "book"}
    assert sorted(c.text or "" for c in pool.problems[2].candidates)[0] == "4"
    assert sorted(c.score or 0.0 for c in pool.problems[2].candidates) == [0.0, 0.75, 0.75]
    assert sorted(bool(c.correct) for c in pool.problems[2].candidates) == [False, False, True]
    replayed = await replay(pool, BestOfN(n=3), RecordedVerifier(), orders=2)
    assert replayed.samples.value == 3


async def test_a_solve_s_own_limit_is_not_taken_for_the_whole_run_s(tmp_path: Path) -> None:
    plan = Plan(problems=asked(3), strategies={"votes": SelfConsistency(n=4)}, model=ScriptedModel(["4"]),
                budgets={"tokens=40": Budget(tokens=40)})  # fmt: skip
    with plan.open(tmp_path / "run") as store:
        assert await bench(plan, store, total=Budget(calls=100, usd=1.0))
        assert [(s.stopped, s.calls) for s in store.solves()] == [("budget", 2)] * 3


_JOURNAL = """
import sys
from tts_plugins.bench._reply_journal import _read, _written
from tts_plugins.models._openai.choices import generation
from tts_plugins.types import Reply, Usage

choice = {"message": {"role": "assistant", "content": "4", "refusal": None}, "finish_reason": "stop"}
made = generation(choice)
_, reply = _read(_written([1], Reply(generations=(made,), usage=Usage(calls=1))))
early = "openai" in sys.modules
print(early, reply.generations[0].text, reply.generations[0].output.content, type(made.output).__name__)
"""


def test_a_journal_is_written_and_read_without_loading_the_client_s_package() -> None:
    """Regression: the first reply of a benchmark loaded it on the event loop, for half a second."""
    done = subprocess.run([sys.executable, "-c", _JOURNAL], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout.split(), done.stderr) == (["False", "4", "4", "ChatCompletionMessage"], "")
