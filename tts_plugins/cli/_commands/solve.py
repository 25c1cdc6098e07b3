"""`tts-plugins solve`: one prompt, answered within a budget."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import typer

from tts_plugins.budget import Budget
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments import strategy as _strategy
from tts_plugins.cli._arguments.groups import BudgetGroup, JudgeGroup, ModelGroup, grouped
from tts_plugins.cli._arguments.verifier import answer_of, learned_head, verifier_of
from tts_plugins.cli._commands.solve_file import solve_file
from tts_plugins.cli._display.console import (
    Debug,
    Download,
    Html,
    Json,
    check_writable,
    complain,
    emit,
    emit_text,
    errors,
    no_key_echo,
    say,
    start_local,
    stderr,
    stdout,
    write_file,
)
from tts_plugins.cli._display.estimate import rendered
from tts_plugins.cli._display.interrupt import watch
from tts_plugins.cli._display.result import summary
from tts_plugins.cli._display.solve_view import SolveView
from tts_plugins.engine import SolveEvents, solve_events
from tts_plugins.engine.dry_run import brief
from tts_plugins.engine.dry_run import dry_run as _dry_run
from tts_plugins.errors import ConfigurationError
from tts_plugins.ledger import Ledger
from tts_plugins.models import EmbeddingModel, OpenAICompatibleModel
from tts_plugins.options import SolveOptions
from tts_plugins.profiles import Profile, load_profile
from tts_plugins.types import Problem, Result


@dataclass(frozen=True, kw_only=True)
class _Output:
    as_json: bool
    html: Path | None
    trace: bool
    quiet: bool


@grouped
def solve(
    prompt: options.Prompt = None,
    problems: options.ProblemsFile = None,
    profile: options.Profile = None,
    model: ModelGroup = ModelGroup(),
    larger_model: options.LargerModel = None,
    larger_model_price: options.LargerModelPrice = None,
    strategy: options.Strategy = None,
    n: options.N = None,
    select: options.Select = None,
    stop: options.Stop = None,
    settings: options.Set = None,
    answer: options.AnswerKey = None,
    verifier: options.VerifierName = None,
    judge: JudgeGroup = JudgeGroup(),
    abstain_below: options.AbstainBelow = None,
    seed: options.Seed = None,
    attempts: options.Attempts = 4,
    limits: BudgetGroup = BudgetGroup(),
    dry_run: options.DryRun = False,
    concurrency: options.Concurrency = 8,
    as_json: Json = False,
    html: Html = None,
    trace: options.Tree = False,
    quiet: options.Quiet = False,
    debug: Debug = False,
) -> None:
    """Answer one prompt with many candidates, within a budget.

    The answer goes to stdout; progress and a summary go to stderr. Ctrl-C ends with the best answer so far.

    [dim]tts-plugins solve "Name a primary colour." --n 8 --budget-tokens 4000[/]

    [dim]tts-plugins solve - --model qwen3-4b --base-url http://127.0.0.1:8000/v1 --stop vote-decided < question.txt[/]

    [dim]tts-plugins solve "Order: 3 lamps. As JSON:" --verifier json-schema:order.json --stop threshold:1[/]

    [dim]tts-plugins solve --problems questions.jsonl --profile careful > answers.jsonl[/]

    Exit code: 0 answered, 2 wrong option, 3 out of budget or time, 4 key refused, 5 model or verifier failed, 6 a file
    is wrong, 7 a package is missing, 8 not sure enough to answer, 130 interrupted, 1 anything else.
    """
    with errors(debug):
        check_writable(html, "--html")
        if (prompt is None) == (problems is None):
            raise ConfigurationError("solve: give a PROMPT, or --problems SOURCE, and not both")
        bundle = Profile(name="none") if profile is None else load_profile(profile)
        head = learned_head(verifier)
        more = {"logprobs": True} if head is not None and head.logprobs else {}
        download = Download(stderr(), quiet=quiet)
        named = {**model.settings(), "progress": download, **more}
        generator = _build.model_of(**named)
        asks = _build.judge_of(**judge.settings(), generator=generator)
        at = {"base_url": model.base_url, "api_key_env": model.api_key_env}
        check = verifier_of(verifier, **at, judge=asks) or bundle.verifier
        given = {"n": n, "select": select, "stop": _strategy.stop_of(stop or ())}
        fields = {**_strategy.settings_of(settings or ()), **{k: v for k, v in given.items() if v is not None}}
        chosen = bundle.strategy if strategy is None and not fields else None
        chosen = chosen or _strategy.strategy_of(strategy, fields, verified=check is not None)
        larger, further, alone = None, dict[str, Any](), chosen
        if larger_model is not None:
            larger = _build.model_of(**{**named, "name": larger_model, "price": larger_model_price})
            least = bundle.abstain_below if abstain_below is None else abstain_below
            abstains = least is not None or getattr(chosen, "abstains", False)
            escalates = bundle.on_abstain == "escalate"
            chosen, further = _strategy.with_larger(chosen, larger, abstains=abstains, escalates=escalates)
        elif larger_model_price is not None:
            raise ConfigurationError(f"--larger-model-price {larger_model_price} needs --larger-model NAME")
        elif bundle.on_abstain == "escalate":
            raise ConfigurationError(f"--profile {profile}: on_abstain='escalate' takes --larger-model, to ask it then")
        asked: SolveOptions = {
            **cast(SolveOptions, bundle.settings()), "model": generator, "strategy": chosen, "verifier": check,
            "attempts": attempts, "profile": None,
        }  # fmt: skip
        typed: dict[str, Any] = {
            "budget": limits.budget(), "seed": seed, "abstain_below": abstain_below,
            "answer": None if answer is None else answer_of(answer), **further,
        }  # fmt: skip
        asked.update(cast(SolveOptions, {name: value for name, value in typed.items() if value is not None}))
        models = [generator, *(m for m in (larger, asks) if m is not None and m is not generator)]
        if problems is not None:
            if dry_run:
                raise ConfigurationError("--dry-run is for a PROMPT; try one of the problems")
            _build.check_key(generator, **at)
            raise typer.Exit(solve_file(problems, asked, models, concurrency, download))
        problem = Problem(sys.stdin.read() if prompt == "-" else prompt)
        if dry_run:
            shown = _dry_run(problem, **asked)
            if larger is not None and chosen is not alone:
                said = f"Some of them may be {larger.name}'s, which are counted here as {generator.name}'s."
                shown = replace(shown, notes=(*shown.notes, said))
            emit(shown.to_dict()) if as_json else stdout().print(rendered(shown))
            return
        _build.check_key(generator, **at)
        start_local(download, *models)
        ledger = asked["budget"] = Ledger(cast(Budget | None, asked.get("budget")))
        events = solve_events(problem, **asked)
        view = SolveView(stderr(), f"{generator.name} · {brief(chosen)}", ledger, scored=check is not None, quiet=quiet)
        result = asyncio.run(_run(events, problem, models, view))
        _deliver(result, _Output(as_json=as_json, html=html, trace=trace, quiet=quiet))


async def _run(
    events: SolveEvents, problem: Problem, models: Sequence[OpenAICompatibleModel | EmbeddingModel], view: SolveView
) -> Result | None:
    try:
        view.priced = (await models[0].bound(problem)).usd is not None
        with no_key_echo(), view:
            return await watch(events, view)
    finally:
        for model in models:
            await model.aclose()


def _deliver(result: Result | None, output: _Output) -> None:
    if result is None:
        complain("interrupted before the first candidate was complete")
        raise typer.Exit(130)
    if not output.quiet:
        summary(stderr(), result)
    if output.as_json:
        emit(result.to_dict())
    else:
        emit_text(result.text)
    if output.trace:
        # Beside --json, stdout holds the object only.
        (sys.stderr if output.as_json else sys.stdout).write(result.trace.tree() + "\n")
    if output.html is not None:
        # Last: the answer is paid for, whatever becomes of the page.
        write_file(output.html, result.trace.html())
        if not output.quiet:
            say(f"trace: {output.html}")
    if result.abstained is not None:
        raise typer.Exit(8)
