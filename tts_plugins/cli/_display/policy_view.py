"""A calibrated policy as people read it: what it does, in words, and what that was measured to give."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tts_plugins.engine.dry_run import brief
from tts_plugins.policies import ComputeOptimal, Expected, Ladder, LearnedStopping, Plan
from tts_plugins.policies.plan import Interval
from tts_plugins.strategies import BaseStrategy, BestOfN, SelfConsistency

_WIDEST = 34  # of a strategy, so that a table has its place on a screen


def policy_lines(policy: ComputeOptimal) -> Iterator[str]:
    """Say what the policy was fitted to and measured on, before the table."""
    target = policy.plans[-1].target
    goal = (
        f"Goal: fewest tokens that lose at most {target:g} of accuracy beside all samples."
        if target is not None
        else f"Goal: accuracy less the price of tokens, {policy.plans[-1].price:.2g} a token."
    )
    measured = f"measured on {policy.held_out} others" if policy.held_out else "measured on the same: a little too good"
    yield f"{goal} Fitted to {policy.problems} problems of {policy.model}, {measured}."


def policy_table(policy: ComputeOptimal) -> Table:
    """Each plan with its own figures, beside all samples and one sample."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, caption=_CAPTION, caption_justify="left")
    shown.add_column("samples\nat most", justify="right")
    shown.add_column("strategy", max_width=_WIDEST, overflow="fold")
    for head in ("right", "loss beside\nall samples", "tokens\na problem", "samples", "rounds"):
        shown.add_column(head)
    for plan in policy.plans:
        _add(shown, plan)
    return shown


_CAPTION = (
    "Means of a problem, with 95 % intervals. Rounds are requests that wait for each other, so their times add up. "
    "The bound is what it loses at most, with the confidence that was asked for, as the problems of the fit say."
)


def _add(shown: Table, plan: Plan) -> None:
    assert plan.expected is not None and plan.expected_full is not None and plan.expected_one is not None
    lost, fewer = "", ""
    if plan.over_full is not None:
        value, low, high = plan.over_full.accuracy
        lost = f"{-value + 0:.3f}\n{-high + 0:.3f} to {-low + 0:.3f}"
        if plan.lost_at_most is not None:
            lost += f"\nbound {plan.lost_at_most:.3f}" if plan.lost_at_most else "\ncannot lose"
        fewer = "" if plan.over_full.tokens is None else f"\n{_fewer(plan.over_full.tokens[0])}"
    words = in_words(plan.fixed) + "".join(f"; {line}" for line in _looks(plan))
    cells = _cells(plan.expected)
    shown.add_row(str(plan.budget), words, cells[0], lost, cells[1] + fewer, *cells[2:])
    rows = [(in_words(other.strategy), other.expected) for other in plan.others]
    if plan.stages and plan.expected_fixed is not None:
        rows.append((f"without the looks: {in_words(plan.fixed)}", plan.expected_fixed))
    rows += [("all samples, without a rule", plan.expected_full), ("one sample", plan.expected_one)]
    for i, (what, expected) in enumerate(rows):
        own = _cells(expected, intervals=False)
        shown.add_row("", f"[dim]{what}[/]", own[0], "", *own[1:], end_section=i == len(rows) - 1)


def _fewer(times: float) -> str:
    shown = f"{times:.2f} times fewer" if times >= 1 else f"{1 / times:.2f} times more"
    return "as many" if shown.startswith("1.00") else shown


def _looks(plan: Plan) -> Iterator[str]:
    for stage in plan.stages:
        for number, choice in enumerate(stage.choices, 1):
            if choice is not None:
                yield (
                    f"after {stage.count}, if {stage.difficulty.signal} puts it into bin {number} of "
                    f"{stage.difficulty.bins} (1 is the easiest): {in_words(choice)}"
                )


def in_words(strategy: BaseStrategy) -> str:
    """Return what a strategy does, as a reader says it."""
    if isinstance(strategy, Ladder):
        return "; ".join(_rungs(strategy))
    if not isinstance(strategy, BestOfN | SelfConsistency):
        return brief(strategy)
    if strategy.n == 1:
        return "one sample"
    rule = strategy.stop
    how = {"best": "best score", "weighted": "weighted vote"}
    chosen = how[strategy.select] if isinstance(strategy, BestOfN) else "vote"
    if rule is None:
        return f"{chosen} of {strategy.n}"
    when = _when(rule) if isinstance(rule, LearnedStopping) else brief(rule)
    waves = "in doubling waves" if strategy.wave is None else f"{strategy.wave} at a time"
    return f"{chosen} of up to {strategy.n}, {waves if strategy.wave != 1 else 'one by one'}; stops {when}"


def _when(rule: LearnedStopping) -> str:
    if rule.weights:
        return f"where one more is not worth its tokens (learned, at {rule.price:.2g} a token)"
    found = []
    if rule.enough is not None:
        fading = f" that fades by {rule.fade:g} over the {rule.n}" if rule.fade else ""
        kind = "score" if rule.select == "best" else "lead"
        found.append(f"at a {kind} of {rule.enough:g}{fading}")
    if rule.at_most is not None and rule.at_most < rule.n:
        found.append(f"after {rule.at_most}")
    sure = "at a score of 1" if rule.select == "best" else "once the vote is decided"
    return " or ".join(found) or sure


def _rungs(ladder: Ladder) -> Iterator[str]:
    for i, rung in enumerate(ladder.rungs):
        asked = "" if rung.model is None else f" of {getattr(rung.model, 'name', rung.model)}"
        effort = "" if rung.effort is None else f" at {rung.effort} effort"
        before = "" if i == 0 else "else "
        ends = ladder.rungs[i].enough if rung.enough is not None else ladder.enough
        until = "" if i == len(ladder.rungs) - 1 else f", enough at {ladder.signal or 'agreement'} {ends}"
        yield f"{before}{in_words(rung.strategy)}{asked}{effort}{' beside them' if rung.beside else ''}{until}"


def _cells(e: Expected, *, intervals: bool = True) -> tuple[str, str, str, str]:
    found = [(e.accuracy, 3), (e.tokens, 0), (e.samples, 1), (e.rounds, 1)]
    right, tokens, samples, rounds = (_words(x, digits, intervals and digits != 1) for x, digits in found)
    return right, tokens, samples, rounds


def _words(interval: Interval | None, digits: int, between: bool) -> str:
    if interval is None:
        return "-"
    value, low, high = (f"{x:,.{digits}f}" for x in interval)
    return f"{value}\n{low} to {high}" if between and low != high else value
