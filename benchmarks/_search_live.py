"""The embedded model on sums that a program checks line by line: who passes, at equal tokens."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tts_plugins import DVTS, BeamSearch, Candidate, ParticleFilter, Problem, Revision, SelfConsistency, Usage, solve
from tts_plugins.bench.metrics import paired_bootstrap
from tts_plugins.models import LocalModel, StepSettings
from tts_plugins.steps import steps_of
from tts_plugins.strategies import BaseStrategy
from tts_plugins.verifiers import CallableVerifier

POOL = 56  # whole solutions sampled for each problem, from which Best-of-k is computed for every k
STRATEGIES: tuple[BaseStrategy, ...] = (
    BeamSearch(n=8, beam_width=8, max_steps=8), BeamSearch(n=8, beam_width=4, max_steps=8),
    DVTS(n=8, beam_width=4, max_steps=8), ParticleFilter(n=8, max_steps=8), Revision(chains=2, rounds=4),
)  # fmt: skip


@dataclass(frozen=True)
class Spent:
    """What one solve, or one problem's samples, came to."""

    passed: float
    tokens: int


def lines(numbers: Sequence[int]) -> list[str]:
    """The right solution."""
    out, total = list[str](), numbers[0]
    for number in numbers[1:]:
        out.append(f"{total} + {number} = {total + number}")
        total += number
    return [*out, f"Answer: {total}"]


def posed(rng: random.Random, count: int) -> Problem:
    """`count` numbers to be added one at a time, after two examples."""
    turns: list[dict[str, str]] = []
    for last in (False, False, True):
        numbers = [rng.randint(2, 9) for _ in range(count)]
        turns.append({"role": "user", "content": "Add one number at a time: " + " ".join(map(str, numbers))})
        if not last:
            turns.append({"role": "assistant", "content": "\n".join(lines(numbers))})
    return Problem(turns, metadata={"right": lines(numbers)})


def checked(problem: Problem, candidate: Candidate) -> tuple[list[float], str]:
    """1 for each line as long as all before it are right; the first wrong one is named."""
    scores, right = list[float](), problem.metadata["right"]
    written, feedback = [s.text.strip() for s in steps_of(candidate, "line")], "all lines are right"
    for i, line in enumerate(written):
        good = i < len(right) and line == right[i] and (not scores or scores[-1] == 1)
        if not good and (not scores or scores[-1] == 1):
            feedback = f"line {i + 1}, «{line[:40]}», is wrong"
        scores.append(float(good))
    if candidate.finished and len(written) < len(right) and scores:
        scores[-1] = 0.0
    return scores or [0.0], feedback


CHECK = CallableVerifier(checked, aggregate="mean", name="lines", inline=True)
STEPWISE = CallableVerifier(lambda p, c: checked(p, c)[0], aggregate="last", name="lines", inline=True)


def solved(problem: Problem, candidate: Candidate) -> bool:
    """Whether every line is right and none is missing."""
    written = [s.text.strip() for s in steps_of(candidate, "line")]
    right: list[str] = problem.metadata["right"]
    return written[: len(right)] == right


def best_of(passed: int, k: float) -> float:
    """The chance that one of `k` drawn from the pool is right; between whole numbers it is a straight line."""
    k = min(max(k, 0.0), POOL)
    low, high = (1 - math.comb(POOL - passed, n) / math.comb(POOL, n) for n in (math.floor(k), math.ceil(k)))
    return low + (high - low) * (k - math.floor(k))


async def live(problems: int) -> None:
    """Print the table line by line: passes, tokens, and Best-of-k on the same problems with as many tokens."""
    with LocalModel(
        max_tokens=56, slots=8, batch=8, context=512, temperature=0.8, steps=StepSettings(by="line", max_tokens=14)
    ) as model:
        for name, count in (("five numbers: five lines", 5), ("two numbers: two lines", 2)):
            await _task(model, name, [posed(random.Random(i), count) for i in range(problems)])
        await model.aclose()


async def _task(model: LocalModel, name: str, problems: Sequence[Problem]) -> None:
    pools = [await _pool(model, problem, i) for i, problem in enumerate(problems)]
    rate = statistics.fmean(right for right, _ in pools) / POOL
    _tell(f"{name}, {len(problems)} problems; one sample passes {rate:.3f}; tokens count prompts and completions")
    _tell(f"  {'':44}{'pass':>22}{'tokens':>8}{'Best-of-k, same tokens':>36}{'difference':>26}")
    for strategy in STRATEGIES:
        spent = [await _spent(model, strategy, problem, i) for i, problem in enumerate(problems)]
        tokens = statistics.fmean(s.tokens for s in spent)
        fixed, each = _costs([usage for _, usage in pools])
        k = (tokens - fixed) / each
        theirs = [[best_of(right, k)] for right, _ in pools]
        ours = [[s.passed] for s in spent]
        less = paired_bootstrap(ours, theirs)
        zero = [[0.0]] * len(ours)
        mine, bon = paired_bootstrap(ours, zero), paired_bootstrap(theirs, zero)
        label = repr(strategy).replace("lookahead=0, ", "").replace(", select='weighted'", "")
        beside = f"k={min(k, POOL):.1f}: {_said(bon)}" + ("" if k <= POOL else f", of {k:.0f}")
        _tell(f"  {label[:44]:44}{_said(mine):>22}{tokens:8.0f}{beside:>36}{_said(less):>26}")


def _tell(line: str) -> None:
    print(line, flush=True)  # it takes minutes: what is there should be seen, and survive an end


async def _pool(model: LocalModel, problem: Problem, seed: int) -> tuple[int, Usage]:
    result = await solve(problem, model=model, strategy=SelfConsistency(n=POOL), seed=seed)
    return sum(solved(problem, c) for c in result.candidates), result.usage


def _costs(usages: Sequence[Usage]) -> tuple[float, float]:
    """Of a request: its prompt, which a batch counts once; and of each further sample."""
    batches = POOL // 8
    return (
        statistics.fmean(u.prompt_tokens / batches for u in usages),
        statistics.fmean(u.completion_tokens / POOL for u in usages),
    )


async def _spent(model: LocalModel, strategy: BaseStrategy, problem: Problem, seed: int) -> Spent:
    verifier = CHECK if isinstance(strategy, Revision) else STEPWISE
    result = await solve(problem, model=model, strategy=strategy, verifier=verifier, seed=seed)
    return Spent(float(solved(problem, result.best)), result.usage.tokens)


def _said(e: object) -> str:
    value, low, high = (getattr(e, name) for name in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
