"""`tts-plugins rollouts`: solutions of a model with Monte-Carlo labels for every step."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tts_plugins._internal.files import check_row, json_objects
from tts_plugins.bench.rollouts import Grade, RolloutWork, by_answer, make_rollouts
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.engine import EngineGroup, say_repeated
from tts_plugins.cli._arguments.groups import BudgetGroup, ModelGroup, grouped
from tts_plugins.cli._arguments.verifier import function_of
from tts_plugins.cli._display.console import (
    Debug,
    Download,
    Json,
    check_writable,
    emit,
    errors,
    resumable,
    say,
    start_local,
    stderr,
)
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.ledger import Ledger
from tts_plugins.models import OpenAICompatibleModel, StepSettings
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.types import Problem

_REASONS = {
    "truncated": "cut at --max-tokens or --step-tokens",
    "unfinished": "not ended within --max-steps, or failed",
    "unread": "without an answer that can be graded",
    "unlabelled": "of which no continuation could be graded",
}
_STEPS = ("paragraph", "line", "numbered")


@grouped
def rollouts(
    problems: Annotated[
        Path,
        typer.Argument(
            metavar="PROBLEMS", help='JSON lines: {"id", "prompt" or "messages", "answer"}; answer is gold.'
        ),
    ],
    out: Annotated[Path, options.PLAIN("Where they go; what is there already is not made again.", metavar="FILE")],
    limit: options.Limit = None,
    model: ModelGroup = ModelGroup(max_tokens=512),
    solutions: Annotated[int, options.PLAIN("Solutions of each problem.", min=1)] = 8,
    count: Annotated[int, options.PLAIN("Continuations from each step.", "--rollouts", min=1)] = 8,
    steps: Annotated[str, options.PLAIN("What ends a step.", metavar="|".join(_STEPS))] = "paragraph",
    step_tokens: Annotated[int | None, options.PLAIN("Tokens of one step at most.", min=1)] = None,
    max_steps: Annotated[int, options.PLAIN("Steps of one solution at most.", min=1)] = 40,
    check: Annotated[
        str | None,
        options.PLAIN(
            "python:package.module:function or python:path/file.py:function of (problem, candidate), that says "
            "whether it is right, or None if that cannot be read; equal answers are right if left out.",
            metavar="FUNCTION",
        ),
    ] = None,
    logprobs: Annotated[
        bool, options.PLAIN("Keep how sure the model was of each token.", "--logprobs/--no-logprobs")
    ] = True,
    concurrency: options.Concurrency = 2,
    machines: EngineGroup = EngineGroup(),
    seed: options.Seed = None,
    limits: BudgetGroup = BudgetGroup(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Label the steps of a model's own solutions by Monte-Carlo rollouts, without a human.

    Each line of the file is on disk before the next one is started: stop it at any time, and start it again.

    [dim]tts-plugins rollouts problems.jsonl --out rollouts.jsonl --steps line[/]

    [dim]tts-plugins train-verifier rollouts.jsonl --out verifier.npz[/]
    """
    with errors(debug):
        if steps not in _STEPS:
            raise ConfigurationError(f"--steps {steps} is not known; use {', '.join(_STEPS)}")
        check_writable(out, "--out")
        asked = read_problems(problems)[:limit]
        grade: Grade = by_answer if check is None else function_of(check, "--check")
        download = Download(stderr())
        named: dict[str, Any] = {
            **model.settings(), "logprobs": logprobs,
            "steps": StepSettings(by=cast(Any, steps), max_tokens=step_tokens),
        }  # fmt: skip
        writer = _build.model_of(progress=download, **named)
        _build.check_key(writer, model.base_url, model.api_key_env)
        budget = limits.budget()
        start_local(download, writer)
        settings: dict[str, Any] = {
            "solutions": solutions, "rollouts": count, "max_steps": max_steps, "concurrency": concurrency,
            "seed": 0 if seed is None else seed, "dataset": problems.name,
        }  # fmt: skip
        where = machines.make(concurrency)
        if where is not None:
            counts = {name: settings[name] for name in ("solutions", "rollouts", "max_steps", "seed")}
            settings |= {"engine": where, "recipe": functools.partial(_work_there, named, check, counts)}
        pool = asyncio.run(_make(asked, writer, out, grade, Ledger(budget), settings))
        say_repeated(where)
        made = sum(len(p.candidates) for p in pool.problems)
        dropped = sum((_dropped(p) for p in pool.problems), Counter[str]())
        said = {"problems": len(pool.problems), "solutions": made, "dropped": dropped, "out": str(out)}
        emit(said) if as_json else say(
            f"{said['problems']} problems, {made} labelled solutions{_left_out(dropped)}: {out}"
        )


def _work_there(named: Mapping[str, Any], check: str | None, counts: Mapping[str, Any]) -> RolloutWork:
    """Make the work on another machine."""
    model = _build.model_of(progress=lambda done, total: None, **named)
    return RolloutWork(model, by_answer if check is None else function_of(check, "--check"), **counts)


async def _make(
    problems: list[Problem], model: OpenAICompatibleModel, out: Path, grade: Grade, ledger: Ledger,
    settings: dict[str, Any],
) -> Pool:  # fmt: skip
    done = 0

    def tell(problem: PoolProblem) -> None:
        nonlocal done
        done += 1
        right = sum(bool(c.correct) for c in problem.candidates)
        left_out = _left_out(_dropped(problem))
        say(f"{done} made; {problem.id}: {right} of {len(problem.candidates)} solutions right{left_out}")

    try:
        with resumable(out):
            return await make_rollouts(
                problems, model=model, path=out, grade=grade, ledger=ledger, on_problem=tell, **settings
            )
    finally:
        await model.aclose()


def _dropped(problem: PoolProblem) -> Counter[str]:
    return Counter(problem.extra.get("dropped", {}))


def _left_out(dropped: Counter[str]) -> str:
    """Return how many solutions have no labels, and why."""
    reasons = ", ".join(f"{count} {_REASONS.get(name, name)}" for name, count in dropped.items())
    return f" ({dropped.total()} left out: {reasons})" if reasons else ""


def read_problems(path: Path) -> list[Problem]:
    """Read problems from a file of JSON lines.

    Raises:
        DataError: a line is not a problem; names file, line and field.
    """
    made = list[Problem]()
    for number, value in json_objects(path):
        where = f"{path}, line {number}"
        if not (value.get("prompt") or value.get("messages")):
            raise DataError(f'{where}: it has neither "prompt" nor "messages"; write one of them')
        if "answer" not in value:
            raise DataError(f"{where}, answer: is missing; write the gold answer, or null where --check needs none")
        check_row(where, value)
        try:
            content = value.get("messages") or value["prompt"]
            rest = {key: v for key, v in value.items() if key not in ("id", "prompt", "messages")}
            made.append(Problem(content, id=str(value.get("id", f"line-{number}")), metadata=rest))
        except ConfigurationError as error:
            raise DataError(f"{where}: {error}") from error
    if not made:
        raise DataError(f"{path}: there is no problem in it; write a line of JSON for each")
    return made
