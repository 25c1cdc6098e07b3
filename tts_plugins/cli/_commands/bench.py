"""`tts-plugins bench`: problems x strategies x budgets x seeds, into a file that survives being killed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_plugins.bench.plan import Plan
from tts_plugins.bench.report import load
from tts_plugins.bench.runner import bench as run_bench
from tts_plugins.bench.storage.store import Store
from tts_plugins.budget import Budget
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.bench_setup import Setup, texts
from tts_plugins.cli._arguments.engine import EngineGroup, say_repeated
from tts_plugins.cli._arguments.groups import BudgetGroup, JudgeGroup, ModelGroup, PlacingGroup, grouped
from tts_plugins.cli._arguments.verifier import learned_head
from tts_plugins.cli._commands.report import deliver, placing
from tts_plugins.cli._display.bench_view import BenchView, failed_line, show
from tts_plugins.cli._display.console import (
    Debug,
    Download,
    Html,
    Json,
    check_writable,
    complain,
    errors,
    no_key_echo,
    resumable,
    say,
    start_local,
    stderr,
    warn_of,
)
from tts_plugins.engine.many import Engine
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.pools import Pool

Config = Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A TOML or JSON file; options override it.")]
Problems = Annotated[
    str | None,
    options.TASK(
        "A JSONL file, hf:NAME[:CONFIG[:SPLIT]] (needs datasets), or gym:TASK (needs reasoning-gym).", metavar="SOURCE"
    ),
]
PoolFile = Annotated[
    str | None,
    options.TASK(
        "A pool of recorded samples, instead of problems and a model; costs nothing.", "--pool", metavar="FILE"
    ),
]
Seeds = Annotated[int | None, options.SEARCH("Times that each problem is solved; 1 if left out, 8 on a pool.", min=1)]
Strategies = Annotated[
    list[str] | None,
    options.SEARCH(
        "As often as you like: best-of-n:n=8,select=weighted or self-consistency:n=16,stop=vote-lead:3; "
        "compute-optimal:file=policy.json; profile:NAME; python:path/file.py:object. "
        "One answer and 8 votes if left out.",
        "--strategy",
        metavar="NAME[:FIELD=VALUE,…]",
    ),
]
Budgets = Annotated[
    list[str] | None,
    options.SEARCH(
        "Limits of each solve, as often as you like: calls=4, tokens=2000,seconds=10, or none.",
        "--budget",
        metavar="LIMIT=VALUE,…",
    ),
]
Out = Annotated[Path, options.OUTPUT("The file of the run; the same command goes on with it.", metavar="RUN")]


@dataclass(frozen=True, kw_only=True)
class _ModelGroup(ModelGroup):
    max_tokens: Annotated[int | None, options.MODEL("Tokens of one candidate at most; 1024 if left out.")] = (
        None  # CONFIG may say it
    )


@grouped
def bench(
    config: Config = None,
    problems: Problems = None,
    pool: PoolFile = None,
    limit: options.Limit = None,
    grade: options.GradeName = None,
    strategy: Strategies = None,
    budget: Budgets = None,
    seeds: Seeds = None,
    verifier: options.VerifierName = None,
    judge: JudgeGroup = JudgeGroup(),
    answer: options.AnswerKey = None,
    concurrency: options.Concurrency = 8,
    machines: EngineGroup = EngineGroup(),
    model: ModelGroup = _ModelGroup(),
    limits: BudgetGroup = BudgetGroup(),
    out: Out = Path("bench.sqlite"),
    html: Html = None,
    flops: PlacingGroup = PlacingGroup(),
    as_json: Json = False,
    quiet: options.Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure strategies: every strategy within every budget, on every problem.

    Everything is stored as it is paid for: the same command resumes where it was ended or killed. The four
    --budget-… options limit the whole run.

    [dim]tts-plugins bench --pool examples/orders_pool.jsonl.gz --verifier recorded --html report.html[/]

    [dim]tts-plugins bench --problems questions.jsonl --model qwen3-4b --base-url http://127.0.0.1:8000/v1[/]

    Exit code: 0 done, 1 error or a strategy whose every solve failed, 2 wrong option,
    3 the budget of the whole run ended it, 130 interrupted.
    """
    with errors(debug):
        check_writable(html, "--html")
        check_writable(out, "--out")
        place = placing(**vars(flops))
        setup = Setup.read(
            config, problems=problems, pool=pool, limit=limit, seeds=seeds, verifier=verifier, grade=grade,
            answer=answer, model=model.settings(), judge=judge.settings(), strategies=texts(strategy),
            budgets=texts(budget),
        )  # fmt: skip
        total = limits.budget()
        generator = generator_of(setup, Download(stderr(), quiet=quiet))
        plan = setup.plan(generator)
        if isinstance(plan.model, Pool) and not quiet:
            warn_of(plan.model, setup.pool)
        where = machines.make(concurrency)
        with plan.open(out) as store:
            if store.regraded and not quiet:
                say(f"{store.regraded:,} solves are graded again, and none is asked again")
            recipe = functools.partial(_plan_there, setup)
            done = asyncio.run(run_plan(plan, store, generator, concurrency, total, quiet, engine=where, recipe=recipe))
            run = load(store)
        say_repeated(where)
        if not quiet and not as_json:
            show(run, place)
        deliver(run, place, html=html, as_json=as_json, quiet=quiet)
        if not quiet:
            say(f"written: {out}")
        if not done:
            complain(
                f"the budget of the whole run ended it; run the same command with a larger one to continue with {out}"
            )
            raise typer.Exit(3)
        lost = [arm for arm in run.summary.arms if len(arm.failed) == len(arm.all)]
        for arm in lost:
            complain(failed_line(arm))
        if lost:
            raise typer.Exit(1)


def _plan_there(setup: Setup) -> Plan:
    """Make the plan on another machine."""
    return setup.plan(generator_of(setup, None))


def generator_of(setup: Setup, download: Download | None, **more: Any) -> OpenAICompatibleModel | None:
    """Open the model that a setup names; None if a pool takes its place.

    A local model is started here, and its progress shown, if there is a `download` to show.

    Raises:
        ConfigurationError: it has both, or a value that the model refuses.
    """
    if setup.pool is not None:
        if setup.model:
            raise ConfigurationError(f"bench: {sorted(setup.model)[0]} is of a model, and a pool takes its place")
        return None
    names = ("base_url", "api_key_env", "temperature", "system", "price", "threads")
    given = {name: setup.model.get(name) for name in names}
    if (head := learned_head(setup.verifier)) is not None and head.logprobs:
        more["logprobs"] = True
    made = _build.model_of(
        setup.model.get("name"),
        max_tokens=setup.model.get("max_tokens", 1024),
        progress=download or (lambda done, total: None),
        **given,
        **more,
    )
    _build.check_key(made, setup.model.get("base_url"), setup.model.get("api_key_env"))
    if download is not None:
        start_local(download, made)
    return made


async def run_plan(
    plan: Plan, store: Store, model: OpenAICompatibleModel | None, concurrency: int, total: Budget | None, quiet: bool,
    *, engine: Engine | None = None, recipe: Callable[[], Plan] | None = None,
) -> bool:  # fmt: skip
    """Run the rest of a plan with a live view; return whether all is done."""
    view = BenchView(stderr(), plan, store, quiet=quiet)
    try:
        with resumable(store.path), no_key_echo(), view:
            return await run_bench(
                plan, store, concurrency=concurrency, total=total, on_solve=view.add, engine=engine, recipe=recipe
            )
    finally:
        if model is not None:
            await model.aclose()
