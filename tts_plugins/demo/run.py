"""Three ways to spend compute on the same texts: one greedy answer, Best-of-N, and Best-of-N that stops early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins.demo import task
from tts_plugins.demo.report import DemoReport, Outcome, Row
from tts_plugins.engine import solve
from tts_plugins.errors import AllCandidatesFailed
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.protocols import Model, Strategy
from tts_plugins.stopping import Threshold
from tts_plugins.strategies import BestOfN
from tts_plugins.types import Candidate, Problem, Usage
from tts_plugins.verifiers import CallableVerifier

ROWS = ("greedy", "best_of_n", "best_of_n_stop")
_TEXTS_AT_ONCE = {ROWS[0]: 8, ROWS[1]: 1, ROWS[2]: 4}
TEMPERATURE = 0.6
MAX_TOKENS = 48


@dataclass(frozen=True, kw_only=True)
class DemoEvent:
    """Progress after one more problem of a row."""

    row: str
    done: int
    of: int
    correct: int
    problem: str
    score: float | None
    usage: Usage


def demo_model(
    *, n: int = 8, threads: int | None = None, progress: Callable[[int, int], None] | None = None
) -> LocalModel:
    """The embedded model as the demo runs it: `n` candidates side by side, each a request with a seed of its own.

    So a candidate is the same one with and without the stop rule, and its prompt is counted for it in both.
    """
    return LocalModel(
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
        context=512,
        slots=max(n, 4),
        batch=1,
        threads=threads,
        progress=progress,
    )


async def run_demo(
    *,
    model: LocalModel,
    n: int = 8,
    seed: int = 0,
    limit: int | None = None,
    examples: Sequence[task.Example] | None = None,
    on_event: Callable[[DemoEvent], None] | None = None,
) -> DemoReport:
    """Extract a record from each text in three ways, and compare with the known records.

    Args:
        model: as `demo_model` makes it.
        n: candidates for Best-of-N.
        seed: of the run; each problem has its own, derived from it.
        limit: texts used; all where left out.
        examples: other texts of the same kind, with their known records, instead of the demo's own.
        on_event: called after each text.

    The verifier sees the text and the reply, never the known record.

    Raises:
        ConfigurationError: `n` or `limit` is out of range.
        TTSError: the model does not run.
    """
    check_count("demo", "n", n, least=2)
    if limit is not None:
        check_count("demo", "limit", limit)
    examples = list(task.load() if examples is None else examples)[:limit]
    greedy = OpenAICompatibleModel(
        model.name, base_url=await asyncio.to_thread(lambda: model.base_url), temperature=0.0,
        max_tokens=MAX_TOKENS, stream=True, batch=1, concurrency=model.limits.concurrency, price=(0.0, 0.0),
    )  # fmt: skip
    plan: Sequence[tuple[str, Model, Strategy]] = (
        (ROWS[0], greedy, BestOfN(n=1)),
        (ROWS[1], model, BestOfN(n=n)),
        (ROWS[2], model, BestOfN(n=n, stop=Threshold(1.0))),
    )
    try:
        rows = [await _row(name, m, strategy, examples, seed, on_event) for name, m, strategy in plan]
    finally:
        await greedy.aclose()
    settings = {
        "model": model.name, "texts": len(examples), "n": n, "temperature": TEMPERATURE, "max_tokens": MAX_TOKENS,
        "threads": model.threads, "seed": seed,
    }  # fmt: skip
    return DemoReport(rows=tuple(rows), settings=settings)


async def _row(
    name: str,
    model: Model,
    strategy: Strategy,
    examples: Sequence[task.Example],
    seed: int,
    on_event: Callable[[DemoEvent], None] | None,
) -> Row:
    started, done = time.monotonic(), list[Outcome]()
    used = Usage()
    outcomes: dict[str, Outcome] = {}
    # Solve as many texts at once as fill the model's slots, so that every row keeps the machine equally busy.
    places = asyncio.Semaphore(_TEXTS_AT_ONCE[name])

    async def one(number: int, example: task.Example) -> None:
        nonlocal used
        async with places:
            outcome = await _outcome(example, model, strategy, seed * 1_000_003 + number)
        outcomes[example.id] = outcome
        done.append(outcome)
        if outcome.result is not None:
            used = used + outcome.result.usage
        if on_event is not None:
            on_event(
                DemoEvent(
                    row=name, done=len(done), of=len(examples), correct=sum(o.correct for o in done),
                    problem=example.id, score=None if outcome.result is None else outcome.result.score, usage=used,
                )
            )  # fmt: skip

    try:
        async with asyncio.TaskGroup() as group:
            for number, example in enumerate(examples):
                group.create_task(one(number, example))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first to fail; the others were cancelled because of it
    return Row(strategy=name, outcomes=tuple(outcomes[e.id] for e in examples), seconds=time.monotonic() - started)


async def _outcome(example: task.Example, model: Model, strategy: Strategy, seed: int) -> Outcome:
    problem = Problem(task.messages(example.text), id=example.id, metadata={"text": example.text})
    try:
        result = await solve(
            problem,
            model=model,
            strategy=strategy,
            verifier=CallableVerifier(_check, inline=True),
            seed=seed,
            profile=None,
        )
    except AllCandidatesFailed as error:  # no answer counts as a wrong one
        return Outcome(
            problem=example.id, level=example.level, correct=False, possible=False, result=None, error=str(error)
        )
    return Outcome(
        problem=example.id,
        level=example.level,
        correct=task.matches(example.record, result.text),
        possible=any(task.matches(example.record, c.text) for c in result.candidates),
        result=result,
    )


def _check(problem: Problem, candidate: Candidate) -> Any:
    return task.check(problem.metadata["text"], candidate.text)
