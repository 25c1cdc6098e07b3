"""Options that use a larger model's samples of the same problems, priced in tokens of the smaller model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._calibration.options import Setting, selects_of, simple
from tts_plugins.policies._calibration.replayed_trials import Beside, Recorded, Sampling, Trials, select_of
from tts_plugins.policies._calibration.table import Option
from tts_plugins.policies._stopping.walks import Ints
from tts_plugins.policies.ladder import Ladder, Rung
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.selection import Select


@dataclass(frozen=True, kw_only=True)
class LargerPool:
    """The larger model's samples, in the order of the smaller model's problems.

    Attributes:
        price: of one of its tokens, in tokens of the smaller model.
        extra: what a sample costs besides its own tokens and its request's prompt, in its own tokens.
        effort: the reasoning effort, where it is the same model at a higher one.
        same_labels: whether equal answers mean the same in both pools, so that they may be voted on together.
    """

    pool: Pool
    price: float
    extra: float
    effort: str | None = None
    same_labels: bool = True

    def trials(self, selects: Sequence[Select], n: int, s: Setting) -> Trials:
        """Return walks through its samples, in the rows of the smaller model's walks."""
        return Trials(
            self.pool.problems, n, selects, how=s.aggregate, orders=s.orders, seed=s.seed, extra=self.extra,
            batch=s.batch,
        )  # fmt: skip

    def rung(self, sampling: Sampling, *, beside: bool = False) -> Rung:
        """Return the rung of a ladder that samples this model."""
        model = None if self.effort is not None else self.pool.header.model
        return Rung(strategy=sampling, model=model, effort=self.effort, price=self.price, beside=beside)

    def of(self, small: Pool) -> LargerPool:
        """Return the same for some of the problems."""
        by_id = {p.id: p for p in self.pool.problems}
        return replace(self, pool=replace(self.pool, problems=tuple(by_id[p.id] for p in small.problems)))

    @classmethod
    def beside(cls, small: Pool, large: Pool, *, price: float, extra: float, effort: str | None = None) -> LargerPool:
        """Match the larger model's pool to the smaller model's.

        Raises:
            DataError: a problem is missing in the larger pool, or has another prompt there.
            ConfigurationError: the pools are scored by different verifiers.
        """
        names = small.header.verifier, large.header.verifier
        if None not in names and names[0] != names[1]:
            raise ConfigurationError(
                f"calibrate: the pools are scored by {names[0]!r} and by {names[1]!r}; score both with one verifier"
            )
        by_id = {p.id: p for p in large.problems}
        for p in small.problems:
            if p.id not in by_id or not by_id[p.id].candidates:
                lacking = "is missing" if p.id not in by_id else "has no samples"
                raise DataError(f"larger: problem {p.id!r} of the smaller model's pool {lacking}; record it too")
            if None not in (p.prompt, by_id[p.id].prompt) and p.prompt != by_id[p.id].prompt:
                raise DataError(f"larger: problem {p.id!r}, prompt: is not that of the smaller model's pool")
        problems = tuple(by_id[p.id] for p in small.problems)
        return cls(
            pool=Pool(header=large.header, problems=problems), price=price, extra=extra, effort=effort,
            same_labels=not (classes(small) or classes(large) or _contradict(small.problems, problems)),
        )  # fmt: skip


def classes(pool: Pool) -> bool:
    """Return whether a pool's answers are classes of its own, such as g0, g1: numbered anew for each problem.

    It is enough that those of several problems are: a pool may be put together of two.
    """
    if pool.header.extra.get("answers") == "classes":
        return True
    named = Counter(prefix for p in pool.problems if (prefix := _class_prefix(p)) is not None)
    answered = sum(any(c.answer is not None for c in p.candidates) for p in pool.problems)
    return any(count >= min(2, answered) for count in named.values())


def _class_prefix(p: PoolProblem) -> str | None:
    """Return what the labels of a problem's classes begin with; None if its answers are no labels."""
    found = {_CLASS.fullmatch(c.answer) for c in p.candidates if c.answer is not None}
    prefixes = {None if m is None else m.group(1) for m in found}
    written_so = p.answer is not None and _CLASS.fullmatch(p.answer)
    return next(iter(prefixes)) if len(prefixes) == 1 and not written_so else None


_CLASS = re.compile(r"([A-Za-z]+[ _#-]?|#)\d+")


def _contradict(first: Sequence[PoolProblem], second: Sequence[PoolProblem]) -> bool:
    """Return whether equal answers to a problem are graded differently in two pools, more often than by mistake."""
    shared = differ = 0
    for p, q in zip(first, second, strict=True):
        grades = [{c.answer: c.correct for c in each.candidates if c.correct is not None} for each in (p, q)]
        for answer in grades[0].keys() & grades[1].keys() - {None}:
            shared += 1
            differ += grades[0][answer] != grades[1][answer]
    return differ > 0.05 * shared


def larger_options(larger: LargerPool, selects: Sequence[Select], budget: int, s: Setting) -> Iterator[Option]:
    """Return the simple strategies of the larger model, for the ways to choose that both pools have records for."""
    own = [select for select in selects_of(larger.pool, s.aggregate) if select in selects]
    if not own:
        raise DataError("larger: its pool has neither the answers nor the scores that the smaller model's has")
    trials = larger.trials(own, min(budget, larger.pool.fewest), s)
    found = [option for select in own for option in simple(larger.pool, trials, select, s)]
    yield from (_at_once(option, larger, trials) for option in found)
    if larger.same_labels:
        for option in found:
            if option.sampling is not None and option.sampling.stop is None:
                yield _together(option.sampling, larger, trials)


def moved(option: Option, larger: LargerPool, selects: Sequence[Select], s: Setting) -> Option:
    """Return the same option of the larger model on the problems of another pool."""
    own = [select for select in selects_of(larger.pool, s.aggregate) if select in selects]
    sampling = option.strategy.rungs[-1].strategy
    rule = sampling.stop
    trials = larger.trials(own, rule.n if isinstance(rule, LearnedStopping) else option.larger, s)
    if option.beside is not None:
        return replace(option, beside=replace(option.beside, trials=trials))
    return replace(option, recorded=_means(sampling, trials.stops_at(sampling), larger, trials))


def _means(sampling: Sampling, at: Ints, larger: LargerPool, trials: Trials) -> Recorded:
    outcome = trials.outcome(sampling, at, 0)
    means = {f.name: getattr(outcome, f.name).reshape(-1, trials.orders).mean(1) for f in fields(outcome)}
    return Recorded(**{**means, "tokens": means["tokens"] * larger.price})


def _at_once(option: Option, larger: LargerPool, trials: Trials) -> Option:
    assert option.sampling is not None and option.at is not None
    recorded = _means(option.sampling, option.at, larger, trials)
    ladder = None if option.ladder is None else f"larger {option.ladder}"
    return Option(
        name=f"larger: {option.name}", strategy=Ladder((larger.rung(option.sampling),)), recorded=recorded,
        full=option.full, ladder=ladder, larger=option.sampling.n,
    )  # fmt: skip


def _together(sampling: Sampling, larger: LargerPool, trials: Trials) -> Option:
    return Option(
        name=f"larger, beside: {sampling!r}", strategy=Ladder((larger.rung(sampling, beside=True),)),
        beside=Beside(trials=trials, n=sampling.n, select=select_of(sampling), price=larger.price), larger=sampling.n,
    )  # fmt: skip
