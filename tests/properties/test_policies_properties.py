"""What the fit sees of a recorded walk is what the rule sees of the run."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins.policies._paths import Samples, walk
from tts_plugins.policies._state import basis, decided, least_decided, observe
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.selection import Select, choose
from tts_plugins.types import Problem, Scored

SELECTS: tuple[Select, ...] = ("majority", "weighted", "best")
recorded = st.builds(
    PoolCandidate,
    answer=st.sampled_from(["a", "b", "c", None]),
    tokens=st.integers(0, 500),
    # Eighths, whose sums are exact: the array's running sums and the run's fsum may part in the last bit otherwise,
    # and where two answers tie but for that bit, either may lead.
    score=st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.75, 1.0]),
    correct=st.booleans(),
)


def run_of(p: PoolProblem, order: list[int]) -> list[Scored]:
    problem = Problem("?")
    return [Scored(problem, text=str(i), answer=c.answer, tokens=c.tokens, score=c.score, index=at, finished=True)
            for at, i in enumerate(order) for c in (p.candidates[i],)]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(recorded, min_size=2, max_size=9), st.sampled_from(SELECTS), st.integers(0, 99))
def test_arrays_and_runs_agree(candidates: list[PoolCandidate], select: Select, seed: int) -> None:
    n = len(candidates)
    p = PoolProblem(id="p", candidates=tuple(candidates))
    samples = Samples.of([p], n, select, "last")
    paths = walk(samples, n, select, orders=3, seed=seed, reference=100.0)
    rng = np.random.default_rng(seed)
    functions = basis(paths.state, n, select, np)
    over = np.asarray(decided(paths.state, n, select))
    for row in range(3):
        order = [int(i) for i in rng.permutation(n)[:n]]
        run = run_of(p, order)
        for t in range(1, n + 1):
            seen = run[:t]
            state = observe(seen, select, 100.0)
            there = [float(field[row, t - 1]) for field in paths.state]
            assert np.allclose(there, [float(x) for x in state])
            assert np.allclose([f[row, t - 1] for f in functions], basis(state, n, select))
            assert bool(over[row, t - 1]) == bool(decided(state, n, select))
            if select != "majority" or state.votes:  # without any answer SelfConsistency goes by scores, if it has them
                assert int(choose(seen, select).text) == int(paths.chosen[row, t - 1])


@settings(max_examples=40, deadline=None)
@given(st.lists(recorded, min_size=2, max_size=9), st.sampled_from(SELECTS))
def test_what_is_decided_stays(candidates: list[PoolCandidate], select: Select) -> None:
    n = len(candidates)
    run = run_of(PoolProblem(id="p", candidates=tuple(candidates)), list(range(n)))
    states = [None, *(observe(run[:t], select, None) for t in range(1, n + 1))]
    for t, state in enumerate(states[1:], 1):
        assert state is not None
        if decided(state, n, select):
            after = choose(run, select)
            now = choose(run[:t], select)
            assert after is now if select == "best" else after.answer == now.answer
            for before in range(t):
                assert before + least_decided(states[before], n, select) <= t
