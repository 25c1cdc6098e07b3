"""The embedded model on lines that a program checks, short sentences and sums: who passes, at equal tokens."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from tts_plugins import DVTS, BeamSearch, Candidate, ParticleFilter, Problem, Revision, SelfConsistency, Usage, solve
from tts_plugins.metrics import paired_bootstrap
from tts_plugins.models import LocalModel, StepSettings
from tts_plugins.steps import steps_of
from tts_plugins.strategies import BaseStrategy
from tts_plugins.verifiers import CallableVerifier

BATCH = 8  # choices of one request
POOL = 40  # whole solutions sampled for each problem, from which Best-of-k is computed for every k; more where the
MOST_SAMPLES = 160  # dearest search could buy more, up to this many
SECOND = 1_000_000  # seeds of the further ones
TOPICS = (
    "rivers", "dogs", "the moon", "trains", "winter", "gardens", "the sea", "bicycles", "cats", "rain", "mountains",
    "birds", "horses", "the sun", "schools", "music", "trees", "fishing", "cities", "books", "farms", "snow", "ships",
    "bees",
)  # fmt: skip
LINES, LEAST, MOST = 5, 6, 8  # lines wanted, and words in each


@dataclass(frozen=True)
class Spent:
    """What one solve, or one problem's samples, came to."""

    passed: float
    tokens: int


def lines(numbers: Sequence[int]) -> list[str]:
    """The right solution of a sum."""
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
    return Problem(turns, metadata={"lines": lines(numbers)})


def plain(topic: str) -> Problem:
    """Short lines about `topic`, as for a first reader or a subtitle, after one example."""
    ask = f"Write five sentences about %s, each on a line of its own and of {LEAST} to {MOST} words."
    shown = (
        "Bread is made from flour and water.", "Bakers get up early to make it.",
        "The smell of it fills the street.", "Many people eat it with some butter.",
        "Old bread can still make good soup.",
    )  # fmt: skip
    turns = [
        {"role": "system", "content": "You write short lines."},
        {"role": "user", "content": ask % "bread"},
        {"role": "assistant", "content": "\n".join(shown)},
        {"role": "user", "content": ask % topic},
    ]
    return Problem(turns, metadata={"topic": topic})


def right(problem: Problem, written: Sequence[str]) -> list[bool]:
    """Whether each of the first lines, as many as are wanted, is right by itself; one that repeats another is not."""
    if "lines" in problem.metadata:
        return [line == wanted for line, wanted in zip(written, problem.metadata["lines"], strict=False)]
    return [
        LEAST <= len(line.split()) <= MOST and line.endswith(".") and line not in written[:i]
        for i, line in enumerate(written[:LINES])
    ]


def checked(problem: Problem, candidate: Candidate) -> tuple[list[float], str]:
    """1 for each line as long as all before it are right; the first wrong one is named. Lines too many do not count."""
    written = [s.text.strip() for s in steps_of(candidate, "line")]
    good = right(problem, written)
    first = good.index(False) if False in good else len(good)
    scores = [float(i < first) for i in range(len(good))] + [float(first == len(good))] * (len(written) - len(good))
    wanted = _length(problem)
    if candidate.finished and len(written) < wanted and scores:
        scores[-1] = 0.0
    if first < len(good):
        words = len(written[first].split())
        why = f" It has {words} words." if "topic" in problem.metadata else ""
        return scores, f"line {first + 1}, '{written[first][:60]}', is wrong.{why}"
    return scores or [0.0], "lines are missing" if len(good) < wanted else "all lines are right"


def solved(problem: Problem, candidate: Candidate) -> bool:
    """Whether every line is right and none is missing; what follows them can be cut."""
    good = right(problem, [s.text.strip() for s in steps_of(candidate, "line")])
    return len(good) == _length(problem) and all(good)


def _length(problem: Problem) -> int:
    return len(problem.metadata["lines"]) if "lines" in problem.metadata else LINES


def strategies(steps: int) -> tuple[BaseStrategy, ...]:
    """Each with as many levels as the task has lines."""
    return (
        BeamSearch(n=8, beam_width=8, max_steps=steps), BeamSearch(n=8, beam_width=4, max_steps=steps),
        DVTS(n=8, beam_width=4, max_steps=steps), ParticleFilter(n=8, max_steps=steps), Revision(chains=2, rounds=4),
    )  # fmt: skip


CHECK = CallableVerifier(checked, aggregate="mean", name="lines", inline=True)
STEPWISE = CallableVerifier(lambda p, c: checked(p, c)[0], aggregate="last", name="lines", inline=True)


@dataclass(frozen=True)
class Samples:
    """Whole solutions of one problem: how many there are, how many are right, and what they took."""

    count: int
    right: int
    usage: Usage

    def best_of(self, k: float) -> float:
        """The chance that one of `k` drawn from them is right; between whole numbers it is a straight line."""
        k = min(max(k, 0.0), self.count)
        wrong, all_ = self.count - self.right, self.count
        low, high = (1 - math.comb(wrong, n) / math.comb(all_, n) for n in (math.floor(k), math.ceil(k)))
        return low + (high - low) * (k - math.floor(k))

    def plus(self, other: Samples) -> Samples:
        """Both together."""
        return Samples(self.count + other.count, self.right + other.right, self.usage + other.usage)


@dataclass(frozen=True)
class Task:
    """A kind of problems, and its name."""

    name: str
    posing: Callable[[int], Problem]


TASKS: dict[str, Task] = {
    "lines": Task("five lines of six to eight words", lambda i: plain(TOPICS[i % len(TOPICS)])),
    "five": Task("five numbers: five lines", lambda i: posed(random.Random(i), 5)),
    "two": Task("two numbers: two lines", lambda i: posed(random.Random(i), 2)),
}


async def live(problems: int, tasks: Sequence[str]) -> None:
    """Print each task's table line by line: passes, tokens, and Best-of-k on the same problems with as many tokens."""
    with LocalModel(
        max_tokens=96,
        slots=BATCH,
        batch=BATCH,
        context=512,
        temperature=0.8,
        steps=StepSettings(by="line", max_tokens=20),
    ) as model:
        for name in tasks:
            task = TASKS[name]
            await _task(model, task.name, [task.posing(i) for i in range(problems)])
        await model.aclose()


async def _task(model: LocalModel, name: str, problems: Sequence[Problem]) -> None:
    _tell(f"{name}, {len(problems)} problems; tokens count prompts and completions")
    measured: list[tuple[BaseStrategy, list[Spent]]] = []
    for strategy in strategies(_length(problems[0])):
        spent = [await _spent(model, strategy, problem, i) for i, problem in enumerate(problems)]
        _tell(f"  {_label(strategy):44}{_said(_mean([s.passed for s in spent])):>22}{_tokens(spent):8.0f}")
        measured.append((strategy, spent))
    pools = [await _pool(model, problem, i, POOL) for i, problem in enumerate(problems)]
    dearest = max(_affordable(pools, _tokens(spent)) for _, spent in measured)
    if dearest > POOL:  # else the row of the dearest search would stand beside fewer samples than it could buy
        more = min(math.ceil(dearest / BATCH) * BATCH, MOST_SAMPLES) - POOL
        pools = [p.plus(await _pool(model, problems[i], SECOND + i, more)) for i, p in enumerate(pools)]
    rate = sum(p.right for p in pools) / sum(p.count for p in pools)
    _tell(f"  one sample passes {rate:.3f}, of {pools[0].count} a problem; beside Best-of-k for the same tokens:")
    _tell(f"  {'':44}{'pass':>22}{'tokens':>8}{'Best-of-k, same tokens':>36}{'difference':>26}")
    for strategy, spent in measured:
        k = _affordable(pools, _tokens(spent))
        ours, theirs = [s.passed for s in spent], [p.best_of(k) for p in pools]
        most = pools[0].count
        beside = f"k={min(k, most):.1f}: {_said(_mean(theirs))}" + ("" if k <= most else f", of {k:.0f}")
        less = paired_bootstrap([[x] for x in ours], [[x] for x in theirs])
        row = f"  {_label(strategy):44}{_said(_mean(ours)):>22}{_tokens(spent):8.0f}{beside:>36}{_said(less):>26}"
        _tell(row)


def _tell(line: str) -> None:
    print(line, flush=True)  # it takes minutes: what is there should be seen, and survive an end


async def _pool(model: LocalModel, problem: Problem, seed: int, count: int) -> Samples:
    result = await solve(problem, model=model, strategy=SelfConsistency(n=count), seed=seed)
    return Samples(len(result.candidates), sum(solved(problem, c) for c in result.candidates), result.usage)


def _affordable(pools: Sequence[Samples], tokens: float) -> float:
    """Samples that this many tokens buy. Their prompt counts once for all, as where a server takes any n: if that errs,
    it errs in favour of Best-of-k."""
    prompt = statistics.fmean(p.usage.prompt_tokens / (p.count / BATCH) for p in pools)
    each = statistics.fmean(p.usage.completion_tokens / p.count for p in pools)
    return (tokens - prompt) / each


async def _spent(model: LocalModel, strategy: BaseStrategy, problem: Problem, seed: int) -> Spent:
    verifier = CHECK if isinstance(strategy, Revision) else STEPWISE
    result = await solve(problem, model=model, strategy=strategy, verifier=verifier, seed=seed)
    return Spent(float(solved(problem, result.best)), result.usage.tokens)


def _tokens(spent: Sequence[Spent]) -> float:
    return statistics.fmean(s.tokens for s in spent)


def _label(strategy: BaseStrategy) -> str:
    left_out = ("lookahead=0, ", ", select='weighted'", ", straggler=None")
    return reduce(lambda text, part: text.replace(part, ""), left_out, repr(strategy))[:44]


def _mean(values: Sequence[float]) -> object:
    return paired_bootstrap([[x] for x in values], [[0.0]] * len(values))


def _said(e: object) -> str:
    value, low, high = (getattr(e, name) for name in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
