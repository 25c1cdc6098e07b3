"""Turns recorded samples into a policy: the best use of each budget, and what to expect of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from tts_plugins._internal.config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies._base import check_list
from tts_plugins.policies.abstention import Abstention
from tts_plugins.policies.aggregates import best_aggregate
from tts_plugins.policies.compute_optimal import ComputeOptimal
from tts_plugins.policies.difficulty import SIGNALS, Signal
from tts_plugins.policies.plan import Measured
from tts_plugins.selection import Aggregate, check_aggregate
from tts_plugins.strategies import BaseStrategy

if TYPE_CHECKING:
    from tts_plugins.pools import Pool


def calibrate(
    pool: Pool,
    *,
    budgets: Sequence[int] | None = None,
    price: float | None = None,
    target: float | None = None,
    confidence: float = 0.9,
    signal: Signal | None = None,
    bins: int = 3,
    options: Sequence[BaseStrategy] | None = None,
    measured: Sequence[Measured] = (),
    aggregate: Aggregate | Literal["auto"] = "auto",
    extra_tokens: float = 0.0,
    larger: Pool | None = None,
    larger_price: float | None = None,
    larger_effort: str | None = None,
    hold_out: float | None = None,
    orders: int | None = None,
    wave: int | Literal["auto"] | None = "auto",
    batch: int | None = None,
    abstain_risk: float | None = None,
    seed: int = 0,
) -> ComputeOptimal:
    """Fit a policy to a pool of graded samples; needs numpy. The same pool and seed give the same policy.

    For each budget it takes the strategy that is best for all problems. With a price, a bin of difficulty gets a
    strategy of its own only if that is a gain on problems that it was not chosen on (two folds, paired, with an
    interval). The expected figures are of problems that were held out of the fit.

    Args:
        pool: at least four problems; it reads `correct` here. Problems that lack a score while others have one are
            left out.
        budgets: samples a problem at most, a plan for each; by default powers of two from 4 and all of the samples.
        price: of a token in accuracy: 1e-5 gives up a point of accuracy to save 1,000 tokens a problem, 0 nothing; or
        target: the most accuracy to lose against all samples of a budget without a stop rule, chosen from in the way
            that is best: the cheapest strategy that loses no more, with the confidence. Ladders of simple rules are
            tested from cautious to bold, as in `LearnedStopping.fit`. 0.01 where neither is given. Below
            max(20, 0.5 / target) problems nothing can be promised: then all samples are taken until the choice is
            decided, which loses nothing, and `Plan.notes` says how many problems would do.
        confidence: with which a target is kept, from 0.5 (an even chance) to below 1.
        signal: of difficulty; "score" where there are scores, else "agreement".
        bins: of difficulty, quantiles of what a probe sees. The paper has five, for 500 problems.
        options: strategies to choose among, `BestOfN` or `SelfConsistency`; by default those without a rule, with
            the simple rules, and with learned ones, for each way to choose that the pool has records for. Each that
            is given takes its share of the error level of a target.
        measured: outcomes of strategies that samples cannot replay: beams, revisions.
        aggregate: how recorded step scores become one; "auto" takes the one that tells right from wrong best in this
            pool. The policy keeps it, and refuses a verifier that makes its scores in another way.
        extra_tokens: what a sample costs besides its own tokens and its request's prompt, such as its verification. A
            prompt (the pool's `prompt_tokens`) is paid for once a request, as the engine pays for it.
        larger: a larger model's samples of the same problems, scored by the same verifier where there is one. Then a
            plan may be a `Ladder` to that model: at once, or where the smaller one's first samples look hard. Its
            samples are chosen among alone, or beside the smaller one's where equal answers mean the same in both
            pools. `budgets` counts both.
        larger_price: what a token of the larger model costs, in tokens of the smaller one: the ratio of their prices,
            or of their parameters for FLOPs. All expected tokens and `price` are in tokens of the smaller one.
        larger_effort: where the larger pool is of the same model at a higher reasoning effort, that effort.
        hold_out: the share of the problems that figures are measured on and no plan is fitted to; `held_out` says
            which. 0.3 where left out, 0.85 with `abstain_risk`. With 0, figures are of the fit, a little too good.
        orders: shuffled orders in which each problem is walked through: with few, a fit depends on the seed. If left
            out, so many that it takes seconds: 10 to 100 for 15,000 in all, or for 3,000 with scores or a price.
        wave: of the strategies with a rule: 1 asks one by one, which waits longest and pays for a prompt each time;
            None sends as many samples in a request as the rule needs, then twice as many; "auto" takes the cheaper of
            the two, and `Plan.others` has the other.
        batch: samples that one request gives at most, 1 for a server without `n`; None for any number.
        seed: of the shuffled orders and of the folds.
        abstain_risk: of the questions that the policy answers, at most this share may be wrong, with the confidence; it
            then answers from a confidence on that `Abstention` finds for each plan, on the problems that are held out:
            the promise would not hold on those that chose the plan. The plan is chosen among the strategies whose
            confidence tells right from wrong best, so that it answers the most; a target is then kept against all
            samples chosen from in that way, and `Plan.notes` says why. None answers all.

    Raises:
        ConfigurationError: a setting is wrong, or a fold would be empty.
        DataError: all candidates are truncated, or a record lacks what the fit needs.
    """
    from tts_plugins.policies._calibration import inputs  # what is used here alone is imported here
    from tts_plugins.policies._calibration.calibration import Calibration  # numpy
    from tts_plugins.policies._calibration.table import Goal

    check_count("calibrate", "bins", bins)
    check_count("calibrate", "seed", seed, least=0)
    inputs.check_counts(orders=orders, batch=batch, wave=None if wave == "auto" else wave)
    for name, many in (("budgets", budgets), ("options", options)):
        if many is not None:
            check_list("calibrate", name, many)
    check_list("calibrate", "measured", measured)
    if (odd := next((each for each in measured if not isinstance(each, Measured)), None)) is not None:
        raise ConfigurationError(f"calibrate: measured has {odd!r:.80}, which is not a Measured; make one of it")
    inputs.check_goal(price, target, confidence, extra_tokens)
    inputs.check_abstaining(abstain_risk, confidence, larger)
    if signal is not None and signal not in SIGNALS:
        raise ConfigurationError(
            f"calibrate: signal={signal!r} is not known; use one of {', '.join(map(repr, SIGNALS))}"
        )
    share = inputs.held_out_share(hold_out, abstain_risk)
    inputs.check_pool(pool)
    if aggregate != "auto":
        check_aggregate("calibrate", aggregate)
    how: Aggregate = best_aggregate(pool) if aggregate == "auto" else aggregate
    usable, notes = inputs.usable_problems(pool, how)
    beside = inputs.larger_beside(usable, larger, larger_price, extra_tokens, larger_effort)
    sizes, limited = inputs.sizes_of(usable, None if beside is None else beside.pool, budgets)
    fitted, rest = inputs.held_apart(usable, share, seed)
    orders = inputs.orders_of(fitted, how, priced=bool(price)) if orders is None else orders
    work = Calibration(
        fitted, signal=signal, bins=bins, options=options, measured=measured, aggregate=how, orders=orders,
        extra=extra_tokens, wave=wave, batch=batch, seed=seed, larger=beside, price=price,
        held_out=rest, abstain_risk=abstain_risk,
    )  # fmt: skip
    notes += limited + inputs.prompt_notes(fitted)
    if beside is not None and not beside.same_labels:
        notes += ("equal answers do not mean the same in the two pools, so their samples are not voted on together",)
    goal = Goal(price=price, target=0.01 if target is None else target, confidence=confidence)
    plans = [work.plan(goal, work.table(size)) for size in sizes]
    policy = ComputeOptimal(
        plans=tuple(replace(plan, notes=(*notes, *plan.notes)) for plan in plans), model=pool.header.model,
        verifier=pool.header.verifier if work.scored else None,
        larger=None if larger is None or larger_effort is not None else larger.header.model, scores=work.scores,
        aggregate=how if work.scored and _stepwise(pool) else None, problems=len(fitted.problems),
        held_out=0 if rest is None else len(rest.problems),
    )  # fmt: skip
    return policy if abstain_risk is None else _abstaining(policy, rest or fitted, abstain_risk, confidence, how)


def held_out(
    pool: Pool, *, hold_out: float | None = None, abstain_risk: float | None = None, seed: int = 0
) -> Pool | None:
    """Return the problems of a pool that `calibrate` fits no plan to at these settings; None if there are none."""
    from tts_plugins.policies._calibration import inputs

    check_count("held_out", "seed", seed, least=0)
    share = inputs.held_out_share(hold_out, abstain_risk)
    inputs.check_pool(pool)
    return inputs.held_apart(inputs.usable_problems(pool, "last")[0], share, seed)[1]


def _abstaining(policy: ComputeOptimal, pool: Pool, risk: float, confidence: float, how: Aggregate) -> ComputeOptimal:
    """Return the policy with a threshold for each of its plans, fitted to the problems of this pool."""
    plans = []
    notes = ("thresholds are fitted to the problems that chose the plan, so that more of the answers may "
             "be wrong than is promised; hold some out",) if not policy.held_out else ()  # fmt: skip
    for plan in policy.plans:
        alone = replace(policy, plans=(plan,))
        found = Abstention.of_pool(pool, alone, risk=risk, confidence=confidence, aggregate=how)
        plans.append(replace(plan, abstain=found, notes=(*plan.notes, *notes)))
    return replace(policy, plans=tuple(plans))


def _stepwise(pool: Pool) -> bool:
    """Whether scores are made of step scores."""
    return any(c.step_scores and c.score is None for p in pool.problems for c in p.candidates)
