"""What `calibrate` is given: checked, and its problems split into those to fit to and those to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._stopping.fit_inputs import check_confidence
from tts_plugins.policies.abstention import check_risk
from tts_plugins.selection import Aggregate

if TYPE_CHECKING:
    from tts_plugins.policies._calibration.larger_model import LargerPool  # it needs numpy
    from tts_plugins.pools import Pool


def check_counts(**given: object) -> None:
    """Raise unless each setting is a whole number from 1, or None."""
    for name, value in given.items():
        if value is not None:
            check_count("calibrate", name, value)


def check_goal(price: object, target: object, confidence: object, extra_tokens: object) -> None:
    """Raise unless these say what a plan is chosen for."""
    if price is not None and target is not None:
        raise ConfigurationError("calibrate: give either price= or target=, not both")
    for name, value in (("price", price), ("target", target), ("extra_tokens", extra_tokens)):
        if not is_amount(value) and (value is not None or name == "extra_tokens"):
            raise ConfigurationError(f"calibrate: {name}={value!r} must be a number from 0")
    check_confidence("calibrate", confidence)


def check_abstaining(risk: float | None, confidence: float, larger: object) -> None:
    """Raise unless a threshold can be fitted, if one is asked for."""
    if risk is None:
        return
    check_risk("calibrate", risk, confidence)
    if larger is not None:
        raise ConfigurationError(
            f"calibrate: abstain_risk={risk!r} with larger=: a threshold for two models is not fitted; solve the "
            "problems with the policy, and use Abstention.fit(confidences, right)"
        )


def held_out_share(hold_out: Any, abstain_risk: float | None) -> float:
    """Return the share of the problems to hold out.

    Raises:
        ConfigurationError: it is not a share.
    """
    share = (_HELD_OUT if abstain_risk is None else _HELD_OUT_TO_ABSTAIN) if hold_out is None else hold_out
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigurationError(f"calibrate: hold_out={hold_out!r} must be a share of the problems, from 0 to below 1")
    return share


_HELD_OUT = 0.3
_HELD_OUT_TO_ABSTAIN = 0.85  # a threshold takes 45 answered problems at a risk of 0.05; a way to choose, about 20


def held_apart(pool: Pool, share: float, seed: int) -> tuple[Pool, Pool | None]:
    """Split a pool into the problems to fit to and those to measure on; None where nothing is held out."""
    problems = len(pool.problems)
    count = min(max(1, round(share * problems)), problems - 4) if share else 0
    if count <= 0:
        return pool, None
    order = pool.split(1, seed=seed)[0].problems  # shuffled
    return tuple(replace(pool, problems=part) for part in (order[count:], order[:count]))  # type: ignore[return-value]


def usable_problems(pool: Pool, how: Aggregate) -> tuple[Pool, tuple[str, ...]]:
    """Leave out the problems without samples, and those that lack a score, or all scores where most do; say so."""
    empty = [p.id for p in pool.problems if not p.candidates]
    if not empty:
        return _scored_problems(pool, how)
    some = replace(pool, problems=tuple(p for p in pool.problems if p.candidates))
    said = f"{len(empty)} of {len(pool.problems)} problems have no samples and were left out ({_shown(empty)})"
    kept, notes = _scored_problems(some, how)
    return kept, (said, *notes)


def _scored_problems(pool: Pool, how: Aggregate) -> tuple[Pool, tuple[str, ...]]:
    unscored = {p.id for p in pool.problems if any(c.scored(how) is None for c in p.candidates)}
    some = any(c.scored(how) is not None for p in pool.problems for c in p.candidates)
    if not unscored or not some:
        return pool, ()
    kept = tuple(p for p in pool.problems if p.id not in unscored)
    total = len(pool.problems)
    if len(kept) < max(4, total / 2):
        said = f"{len(unscored)} of {total} problems lack a score, so scores are not used; score all of them"
        return pool, (said,)
    shown = _shown(sorted(unscored))
    said = f"{len(unscored)} of {total} problems lack a score and were left out ({shown}); score them to use them"
    return replace(pool, problems=kept), (said,)


def _shown(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def prompt_notes(pool: Pool) -> tuple[str, ...]:
    """Say what was assumed of prompts that were not counted."""
    lacking, total = sum(p.prompt_tokens is None for p in pool.problems), len(pool.problems)
    if lacking == total:
        return ("the pool has no prompt_tokens, so prompts cost nothing here; asking one by one pays for each again",)
    said = f"{lacking} of {total} problems have no prompt_tokens; the mean of the others was taken"
    return (said,) if lacking else ()


def check_pool(pool: Pool) -> None:
    """Raise unless a pool has problems enough, and samples that were not all cut."""
    from tts_plugins.pools import Pool

    given: Any = pool
    if not isinstance(given, Pool):
        raise ConfigurationError(f"calibrate: pool={pool!r} is not a Pool; read one with Pool.read(path)")
    sampled = sum(bool(p.candidates) for p in pool.problems)
    if sampled < 4:
        have = {0: "no problems", 1: "1 problem"}.get(sampled, f"{sampled} problems")
        have += " with samples" if sampled < len(pool.problems) else ""
        raise ConfigurationError(
            f"calibrate: the pool has {have}; half of them choose and half of them test the choice, so record at least "
            "4, better 100"
        )
    if all(c.truncated for p in pool.problems for c in p.candidates):
        raise DataError(
            "calibrate: all candidates of the pool are truncated; they say nothing of difficulty; record it again with "
            "a larger max_tokens"
        )


def larger_beside(
    pool: Pool, larger: Pool | None, price: float | None, extra: float, effort: str | None
) -> LargerPool | None:
    """Return the larger model's pool, matched to the smaller one's; None if there is none."""
    from tts_plugins.policies._calibration.larger_model import LargerPool  # numpy
    from tts_plugins.pools import Pool

    if larger is None:
        for name, value in (("larger_price", price), ("larger_effort", effort)):
            if value is not None:
                raise ConfigurationError(f"calibrate: {name}={value!r} is for a larger= pool, which is not given")
        return None
    given: Any = larger
    if not isinstance(given, Pool):
        raise ConfigurationError(f"calibrate: larger={larger!r} is not a Pool; read one with Pool.read(path)")
    if not is_amount(price) or not price:
        raise ConfigurationError(
            f"calibrate: larger_price={price!r} must be a number above 0: what a token of the larger model costs, in "
            "tokens of the smaller one"
        )
    return LargerPool.beside(pool, larger, price=price, extra=extra, effort=effort)


def sizes_of(pool: Pool, larger: Pool | None, budgets: Sequence[int] | None) -> tuple[list[int], tuple[str, ...]]:
    """Return the budgets, rising: those that are given, or powers of two and all samples; and what limits those."""
    most, short = pool.fewest + (larger.fewest if larger is not None else 0), ""
    counts = sorted(len(p.candidates) for p in pool.problems)
    if counts[0] < counts[len(counts) // 2]:
        last = next(p.id for p in pool.problems if len(p.candidates) == counts[0])
        short = f"problem {last!r} has {counts[0]} on record, half of the problems at least {counts[len(counts) // 2]}"
    if budgets is None:
        said = (f"no budget is above {most}, the samples that every problem has: {short}",) if short else ()
        return sorted({most, *(2**i for i in range(2, 8) if 2**i < most)}), said
    sizes = sorted(set(budgets))
    if not sizes:
        raise ConfigurationError("calibrate: budgets=() has no budget; give at least one, such as (8,)")
    for size in sizes:
        check_count("calibrate", "budgets", size)
        if size > most:
            raise ConfigurationError(
                f"calibrate: budgets: {size} is more than the {most} samples that every problem has on record"
                f"{short and f' ({short})'}; lower it, or record more"
            )
    return sizes, ()


def orders_of(pool: Pool, how: Aggregate, *, priced: bool) -> int:
    """Return in how many orders to walk through each problem, if nobody says.

    Learned rules take longer: those of scores, and those of a price.
    """
    learned = priced or any(c.scored(how) is not None for p in pool.problems for c in p.candidates)
    return min(100, max(10, (3_000 if learned else 15_000) // len(pool.problems)))


def is_amount(value: object) -> bool:
    """Return whether the value is a finite number from 0."""
    return is_number(value) and value >= 0
