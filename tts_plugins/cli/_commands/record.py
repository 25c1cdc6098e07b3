"""`tts-plugins record`: samples of a model on problems, as a pool."""

from __future__ import annotations

import asyncio
import functools
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_plugins.bench.plan import Plan
from tts_plugins.bench.recording import ARM, Recorder, Samples
from tts_plugins.bench.storage.store import Store
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.bench_setup import Setup, grade_of
from tts_plugins.cli._arguments.engine import EngineGroup, say_repeated
from tts_plugins.cli._arguments.groups import BudgetGroup, JudgeGroup, ModelGroup, grouped
from tts_plugins.cli._commands.bench import generator_of, run_plan
from tts_plugins.cli._display.console import Debug, Download, check_writable, complain, errors, say, stderr
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.pools import Pool

Problems = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEMS", help="A JSONL file, hf:NAME[:CONFIG[:SPLIT]] (needs datasets), or gym:TASK (reasoning-gym)."
    ),
]
Out = Annotated[Path, options.OUTPUT("The pool, gzipped JSONL, such as pool.jsonl.gz.", metavar="POOL")]
Samples_ = Annotated[int, options.SEARCH("Samples of each problem.", "--n", min=1)]
Logprobs = Annotated[bool, options.MODEL("Ask for each token's log-probability.", "--logprobs")]
Licence = Annotated[str | None, options.OUTPUT("Of the samples, for the pool's header.")]


@grouped
def record(
    problems: Problems,
    out: Out,
    n: Samples_ = 16,
    limit: options.Limit = None,
    grade: options.GradeName = None,
    verifier: options.VerifierName = None,
    judge: JudgeGroup = JudgeGroup(),
    answer: options.AnswerKey = None,
    concurrency: options.Concurrency = 2,
    machines: EngineGroup = EngineGroup(),
    model: ModelGroup = ModelGroup(),
    logprobs: Logprobs = False,
    limits: BudgetGroup = BudgetGroup(),
    licence: Licence = None,
    quiet: options.Quiet = False,
    debug: Debug = False,
) -> None:
    """Record samples of a model on problems, for replays that cost nothing.

    Every reply is stored beside the pool as it comes: the same command resumes where it was ended or killed.
    The four --budget-… options limit the whole recording; the pool then has the problems that were completed.

    [dim]tts-plugins record questions.jsonl --n 16 --out pool.jsonl.gz --logprobs[/]

    Exit code: 0 done, 1 error, 2 wrong option, 3 the budget ended it, 130 interrupted.
    """
    with errors(debug):
        check_writable(out, "--out")
        setup = Setup.read(
            None, problems=problems, limit=limit, verifier=verifier, grade=grade, answer=answer,
            model=model.settings(), judge=judge.settings(),
        )  # fmt: skip
        total = limits.budget()
        path = out.with_name(f".{out.name}.recording")
        if out.exists() and not path.exists():
            raise ConfigurationError(f"--out {out} is there already, and complete; remove it, or choose another name")
        generator = generator_of(setup, Download(stderr(), quiet=quiet), **_requests(logprobs))
        assert generator is not None  # no pool replaces it
        plan = _plan(setup, n, logprobs, generator)
        where = machines.make(concurrency)
        extra = {
            p.id or "": {k: v for k, v in p.metadata.items() if k not in ("answer", "level")} for p in plan.problems
        }
        recorder = Recorder(dataset=problems, licence=licence, extra=extra)
        with _opened(plan, path) as store:
            done = asyncio.run(
                run_plan(plan, store, generator, concurrency, total, quiet, engine=where,
                         recipe=functools.partial(_plan_there, setup, n, logprobs))
            )  # fmt: skip
            pool = recorder.pool(store)
        pool.write(out)
        say_repeated(where)
        _tell(pool, out, n, quiet=quiet)
        if not done:
            complain(f"the budget ended it; run the same command with a larger one to continue from {path}")
            raise typer.Exit(3)
        Store.remove(path)


def _requests(logprobs: bool) -> dict[str, Any]:
    """Return how samples are requested: one in each request, so that the tokens of each are known, unless
    log-probabilities count them.
    """
    return {"logprobs": True} if logprobs else {"logprobs": False, "batch": 1}


def _plan(setup: Setup, n: int, logprobs: bool, generator: OpenAICompatibleModel) -> Plan:
    found, _ = setup.problem_set()
    return Plan(
        problems=found.problems, strategies={ARM: Samples(n=n)}, model=generator, verifier=setup.checker(generator),
        grade=grade_of(setup.grade, found.grade), answer=setup.reader(),
        settings={**setup.fingerprint(), "logprobs": logprobs},
    )  # fmt: skip


def _plan_there(setup: Setup, n: int, logprobs: bool) -> Plan:
    """Make the plan on another machine."""
    generator = generator_of(setup, None, **_requests(logprobs))
    assert generator is not None
    return _plan(setup, n, logprobs, generator)


def _opened(plan: Plan, path: Path) -> Store:
    """Return the recording, new or continued."""
    try:
        return plan.open(path)
    except ConfigurationError as error:
        said = _CHANGED_N.sub(r"--n was \1 and is \2", str(error)).replace("holds a benchmark", "holds a recording")
        raise ConfigurationError(said) from error


# A recording has no strategy, so name the option instead.
_CHANGED_N = re.compile(r'arms\.samples\.strategy was "Samples\(n=(\d+)\)" and is "Samples\(n=(\d+)\)"')


def _tell(pool: Pool, out: Path, n: int, *, quiet: bool) -> None:
    short = sum(len(p.candidates) < n for p in pool.problems)
    if short:
        complain(f"{short} of {len(pool.problems)} problems have fewer than {n} samples: some calls or scores failed")
    if not quiet:
        graded = [c.correct for p in pool.problems for c in p.candidates if c.correct is not None]
        right = f"; {sum(graded) / len(graded):.3f} of them right" if graded else ""
        say(f"{out}: {len(pool.problems)} problems, {sum(len(p.candidates) for p in pool.problems):,} samples{right}")
