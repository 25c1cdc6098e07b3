"""`tts-plugins calibrate`: from recorded samples to a policy in a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tts_plugins._internal.files import writing
from tts_plugins.cli._display.console import Debug, Json, check_writable, emit, errors, say, stdout, warn_of
from tts_plugins.engine.dry_run import brief
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import ComputeOptimal, Expected, calibrate
from tts_plugins.policies.difficulty import Signal
from tts_plugins.policies.plan import Interval
from tts_plugins.pools import Pool


def calibrate_command(
    pool: Annotated[Path, typer.Argument(metavar="POOL", help="Recorded, graded samples (.jsonl or .jsonl.gz).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the policy goes, such as policy.json.")],
    budgets: Annotated[
        str | None,
        typer.Option(metavar="N,N,…", help="Samples a problem at most, a plan for each; powers of two if left out."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(help="What a token costs, in accuracy: 1e-5 gives up a point for 1,000 tokens.")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="The most accuracy to lose against all samples; 0.01 if left out.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="With which a target is kept, 0.5 to below 1.")] = 0.9,
    larger: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A larger model's samples of the same problems, which a plan may ask."),
    ] = None,
    larger_price: Annotated[
        float | None, typer.Option(help="What its token costs, in tokens of the smaller model; needed with --larger.")
    ] = None,
    abstain_risk: Annotated[
        float | None,
        typer.Option(help="Share of answered questions that may be wrong, such as 0.05; unsure ones get no answer."),
    ] = None,
    abstain_page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A page with the risk-coverage curve; needs --abstain-risk."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Samples of one request at most, which share its prompt; 1 for a server without n."),
    ] = None,
    signal: Annotated[
        str | None, typer.Option(metavar="score|agreement|logprob", help="What says how hard a problem is.")
    ] = None,
    bins: Annotated[int, typer.Option(min=1, help="Bins of difficulty.")] = 3,
    aggregate: Annotated[
        str, typer.Option(metavar="auto|last|min|prod|mean", help="How step scores become one; auto: by AUC in POOL.")
    ] = "auto",
    orders: Annotated[int, typer.Option(min=1, help="Shuffled orders of each problem's samples.")] = 10,
    seed: Annotated[int, typer.Option(help="Same pool and seed, same policy.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a policy to recorded samples: which strategy for which difficulty and budget.

    A bin of difficulty gets a strategy of its own only if that is a gain on held-out problems. Otherwise one strategy
    serves all problems, and the table says "no gain".

    [dim]tts-plugins calibrate samples.jsonl.gz --out policy.json --budgets 4,8,16[/]

    [dim]tts-plugins calibrate small.jsonl.gz --larger large.jsonl.gz --larger-price 8 --out policy.json[/]
    """
    with errors(debug):
        check_writable(out, "--out")
        if abstain_page is not None:
            if abstain_risk is None:
                raise ConfigurationError(f"--abstain-page {abstain_page}: there is no curve without --abstain-risk")
            check_writable(abstain_page, "--abstain-page")
        sizes = None if budgets is None else _sizes(budgets)
        for name, path in (("POOL", pool), ("--larger", larger)):
            if path is not None and not path.is_file():
                raise ConfigurationError(f"{name} {path}: there is no such file; record one, or give another path")
        chosen: Signal | None = signal  # type: ignore[assignment]  # `calibrate` says which there are
        samples = Pool.read(pool)
        warn_of(samples, pool)
        policy = calibrate(
            samples, budgets=sizes, price=price, target=target, confidence=confidence,
            larger=None if larger is None else Pool.read(larger), larger_price=larger_price, signal=chosen, bins=bins,
            orders=orders, batch=batch, seed=seed, abstain_risk=abstain_risk, aggregate=aggregate,  # type: ignore[arg-type]  # `calibrate` says which there are
        )  # fmt: skip
        policy.save(out)
        say(f"policy: {out}")
        for plan in policy.plans:
            if plan.abstain is not None:
                say(f"budget {plan.budget}: {plan.abstain.words}")
        if abstain_page is not None:
            with writing(abstain_page):
                abstain_page.write_text(_curves(policy), encoding="utf-8")
            say(f"page: {abstain_page}")
        if as_json:
            emit(policy.to_dict())
        else:
            stdout().print(_table(policy))
        if any(plan.asks_larger for plan in policy.plans):
            say(f"use it: tts-plugins solve … --strategy compute-optimal:file={out} --larger-model {policy.larger}")
        else:
            say(f"use it: {_use(policy, pool, out)}")


def _curves(policy: ComputeOptimal) -> str:
    from tts_plugins.bench.report.abstention import abstention_page

    plans = [(f"budget {p.budget}: {brief(p.fixed)}", p.abstain) for p in policy.plans]
    return abstention_page([(name, found) for name, found in plans if found is not None], policy.model or "any model")


def _use(policy: ComputeOptimal, pool: Path, out: Path) -> str:
    check = "recorded" if policy.aggregate is None else f"recorded:{policy.aggregate}"
    scored = [] if policy.scores is None else ["--verifier", check]  # a pool without scores has nothing to replay
    chosen = f"compute-optimal:file={out}"
    return shlex.join(["tts-plugins", "bench", "--pool", str(pool), *scored, "--strategy", chosen])


_WIDEST = 28  # of a strategy, so that a table has its place on a screen


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--budgets {text}: give whole numbers, such as 4,8,16") from None


def _table(policy: ComputeOptimal) -> Table:
    shown = Table(title=f"expected on other problems, for {policy.model} (95 %)", title_justify="left")
    for head in ("budget", "strategy", "accuracy", "samples", "tokens", "all samples:\naccuracy", "\ntokens", "bins"):
        shown.add_column(head, overflow="fold", max_width=_WIDEST if head == "strategy" else None)
    for plan in policy.plans:
        assert plan.expected is not None and plan.expected_full is not None
        bins = "no gain" if not plan.stages else f"{_words(plan.gain, sign=True)}\ntokens / {_words(plan.saved)}"
        full = plan.expected_full
        shown.add_row(
            str(plan.budget), brief(plan.fixed), *_cells(plan.expected), _words(full.accuracy), _words(full.tokens, 0),
            bins,
        )  # fmt: skip
    return shown


def _cells(e: Expected) -> tuple[str, str, str]:
    return _words(e.accuracy), _words(e.samples, 1), _words(e.tokens, 0)


def _words(interval: Interval | None, digits: int = 3, *, sign: bool = False) -> str:
    if interval is None:
        return "-"
    value, low, high = (f"{x:{'+' if sign else ''}.{digits}f}" for x in interval)
    return f"{value}\n{low} to {high}"
