"""`tts-plugins calibrate`: from recorded samples to a policy in a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from tts_plugins._trace.wording import plural
from tts_plugins.cli._display.console import Debug, Json, check_writable, emit, errors, say, stdout, warn_of, write_file
from tts_plugins.cli._display.policy_view import in_words, policy_lines, policy_table
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import ComputeOptimal, calibrate, held_out
from tts_plugins.policies.difficulty import Signal
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
    larger_effort: Annotated[
        str | None, typer.Option(metavar="EFFORT", help="It is the same model at this reasoning effort, such as high.")
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.9, help="The share of problems to measure on, which fit no plan; 0.3, to abstain 0.85."
        ),
    ] = None,
    wave: Annotated[
        str,
        typer.Option(
            metavar="auto|doubling|N",
            help="Samples sent at once while a rule watches: 1 is cheapest and slowest, doubling waits little.",
        ),
    ] = "auto",
    squash: Annotated[
        str | None, typer.Option(metavar="sigmoid|rank", help="Bring raw reward scores into 0 to 1, by this function.")
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
        str | None,
        typer.Option(metavar="score|best|agreement|entropy|logprob", help="What says how hard a problem is."),
    ] = None,
    bins: Annotated[int, typer.Option(min=1, help="Bins of difficulty.")] = 3,
    aggregate: Annotated[
        str, typer.Option(metavar="auto|last|min|prod|mean", help="How step scores become one; auto: by AUC in POOL.")
    ] = "auto",
    orders: Annotated[
        int | None, typer.Option(min=1, help="Shuffled orders of each problem's samples; 10 to 100 if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same pool and seed, same policy.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a policy to recorded samples: the cheapest strategy that loses no more than you allow.

    Part of the problems is held out, and the table's figures are of those. A bin of difficulty gets a strategy of its
    own only with --price, and only if that is a gain on problems that it was not chosen on.

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
        chosen: Signal | None = signal  # type: ignore[assignment]  # `calibrate` says which there are
        samples = Pool.read(pool, squash=squash)
        warn_of(samples, pool)
        policy = calibrate(
            samples, budgets=sizes, price=price, target=target, confidence=confidence,
            larger=None if larger is None else Pool.read(larger, squash=squash), larger_price=larger_price,
            larger_effort=larger_effort, hold_out=hold_out, signal=chosen, bins=bins, orders=orders, batch=batch,
            wave=_wave(wave), seed=seed, abstain_risk=abstain_risk,
            aggregate=aggregate,  # type: ignore[arg-type]  # `calibrate` says which there are
        )  # fmt: skip
        policy.save(out)
        rest = _keep_apart(out, held_out(samples, hold_out=hold_out, abstain_risk=abstain_risk, seed=seed))
        if abstain_page is not None:
            write_file(abstain_page, _curves(policy))
        if as_json:
            emit(policy.to_dict())
        else:
            _show(policy)
        say(f"policy: {out}")
        for plan in policy.plans:
            if plan.abstain is not None:
                say(f"at {plural(plan.budget, 'sample')}: {plan.abstain.words}")
        if abstain_page is not None:
            say(f"the curves behind these thresholds: {abstain_page}")
        if rest is not None:
            say(f"problems that the plans were not fitted to: {rest}")
            if abstain_risk is not None:
                say("note: the thresholds were fitted to these, so that how often answers are wrong takes others")
            say(f"measure it there: {_bench(policy, rest, out)}")
        say(f"use it: {_solve(policy, out)}")


def _show(policy: ComputeOptimal) -> None:
    console = stdout()
    for line in policy_lines(policy):
        console.print(line, highlight=False)
    console.print(policy_table(policy))
    said: dict[str, list[int]] = {}
    for plan in policy.plans:
        for note in plan.notes:
            said.setdefault(note, []).append(plan.budget)
    for note, budgets in said.items():
        where = "" if len(budgets) == len(policy.plans) else f"at {', '.join(map(str, budgets))} samples: "
        console.print(f"[yellow]note:[/] {where}{note}", highlight=False)


def _curves(policy: ComputeOptimal) -> str:
    from tts_plugins.bench.report.abstention import abstention_page

    plans = [(f"budget {p.budget}: {in_words(p.fixed)}", p.abstain) for p in policy.plans]
    return abstention_page([(name, found) for name, found in plans if found is not None], policy.model or "any model")


def _solve(policy: ComputeOptimal, out: Path) -> str:
    larger = policy.larger is not None and any(plan.models for plan in policy.plans)
    more = [
        *(["--verifier …"] if policy.needs_scores else []),
        *([f"--larger-model {policy.larger}"] if larger else []),
    ]
    return " ".join(["tts-plugins solve …", f"--strategy {shlex.quote(f'compute-optimal:file={out}')}", *more])


def _bench(policy: ComputeOptimal, pool: Path, out: Path) -> str:
    check = "recorded" if policy.aggregate is None else f"recorded:{policy.aggregate}"
    scored = [] if policy.scores is None else ["--verifier", check]  # a pool without scores has nothing to replay
    chosen = f"compute-optimal:file={out}"
    return shlex.join(["tts-plugins", "bench", "--pool", str(pool), *scored, "--strategy", chosen])


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--budgets {text}: give whole numbers, such as 4,8,16") from None


def _wave(text: str) -> int | Literal["auto"] | None:
    if text in ("auto", "doubling"):
        return "auto" if text == "auto" else None
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(f"--wave {text}: give auto, doubling, or a number of samples such as 1") from None


def _keep_apart(out: Path, rest: Pool | None) -> Path | None:
    """Write the problems that were held out beside the policy, so that it can be measured on them."""
    if rest is None:
        return None
    path = out.with_name(f"{out.stem}.held-out.jsonl.gz")
    rest.write(path)
    return path
