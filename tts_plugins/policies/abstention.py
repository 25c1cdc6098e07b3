"""How sure an answer has to be to be given: a threshold with a promise on the share of wrong answers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Self

from tts_plugins._internal.config import check_count, check_share
from tts_plugins._internal.values import as_plain_number
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies import _json_files as _files
from tts_plugins.policies._base import Part, check_list
from tts_plugins.policies._recorded_run import RecordedRun, replayed
from tts_plugins.protocols import Strategy
from tts_plugins.selection import Aggregate, check_aggregate

if TYPE_CHECKING:  # who imports the package mostly fits nothing
    from tts_plugins.pools import Pool

FORMAT = "tts-abstention"
_MOST_POINTS = 200  # of a curve that is kept
_FEW = 10  # answers below which a share of wrong ones says little


@dataclass(frozen=True, kw_only=True)
class Abstention(Part):
    """The lowest confidence with which questions are answered, such that few of the answers are wrong.

    Pass `below` to a solve as `abstain_below`. The promise holds for questions that are drawn as those of the fit were,
    and for the same strategy, model and verifier.

    Attributes:
        below: the threshold; None if none keeps the promise, so that nothing is promised.
        risk: the share of the answered questions that may be wrong.
        confidence: with which that is promised, over the draw of the problems.
        problems: of the fit.
        answered, wrong: of these, how many reach the threshold, and how many of those are wrong.
        needed: the fewest answered questions that can show such a risk: none of them may be wrong then.
        curve: thresholds from the highest down, each with the share of questions answered and the share of these that
            are wrong: the risk-coverage curve.
    """

    below: float | None
    risk: float
    confidence: float
    problems: int
    answered: int
    wrong: int
    needed: int
    curve: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        check_list("Abstention", "curve", self.curve)
        points = tuple(tuple(point) if isinstance(point, list) else point for point in self.curve)
        object.__setattr__(self, "curve", points)
        super().__post_init__()
        check_risk("Abstention", self.risk, self.confidence)
        for name in ("problems", "answered", "wrong", "needed"):
            check_count("Abstention", name, getattr(self, name), least=0)
        if self.below is not None:
            check_share("Abstention", "below", self.below)

    @property
    def coverage(self) -> float:
        """The share of the problems of the fit that are answered."""
        return self.answered / self.problems if self.problems else 0.0

    @property
    def threshold(self) -> str:
        """The threshold in four digits, rounded up: a lower one would answer more than was tested."""
        return "no threshold" if self.below is None else f"{math.ceil(self.below * 1e4 - 1e-6) / 1e4:.4g}"

    @property
    def words(self) -> str:
        """What it says, for people."""
        promise = (
            f"at most {100 * self.risk:.3g}% of the answered questions are wrong, with {self.confidence:.0%} confidence"
        )
        if self.below is not None:
            return (
                f"answer from a confidence of {self.threshold} on: {promise}; of {self.problems} problems it answers "
                f"{self.answered} ({self.coverage:.0%}), {self.wrong} of them wrongly"
            )
        if self.problems < self.needed:
            return (
                f"no threshold: that {promise} takes at least {self.needed} answered problems, and there are "
                f"{self.problems}; record more, or allow a higher risk"
            )
        more = self.enough
        return (
            f"no threshold of these {self.problems} problems shows that {promise}: among the {self.needed} surest "
            "answers some are wrong; "
            + (f"if that stays so, about {more} problems would do; or " if more is not None else "")
            + "allow a higher risk, or use a better verifier or model"
        )

    @property
    def enough(self) -> int | None:
        """About how many problems would show the risk, if answers stay as right as these; None if none would.

        It is what the best point of the curve takes by a normal approximation, of the points with some answers.
        """
        level, least = NormalDist().inv_cdf(self.confidence), _FEW / max(self.problems, 1)
        found = [
            max(self.needed, level**2 * self.risk * (1 - self.risk) / (self.risk - wrong) ** 2) / coverage
            for _, coverage, wrong in self.curve
            if coverage >= least and wrong < self.risk
        ]
        fewest = math.ceil(min(found, default=0.0))
        return fewest if fewest > self.problems else None

    @classmethod
    def fit(
        cls, confidences: Sequence[float | None], right: Sequence[bool], *, risk: float = 0.05, confidence: float = 0.9
    ) -> Self:
        """Find the threshold for questions that were answered with these confidences, and graded.

        From the surest answers down, each threshold is tested for a wrong share above `risk` by the exact binomial
        test, until one fails (fixed-sequence testing, 2110.01052). Answers of the same confidence are taken together.
        A confidence of None is never answered.

        Raises:
            ConfigurationError: a share is out of range, or there is not one grade for each confidence.
        """
        check_risk("Abstention.fit", risk, confidence)
        check_list("Abstention.fit", "confidences", confidences)
        check_list("Abstention.fit", "right", right)
        if len(confidences) != len(right):
            raise ConfigurationError(
                f"Abstention.fit: {len(confidences)} confidences and {len(right)} grades; give one grade for each"
            )
        if (odd := next((good for good in right if good not in (0, 1)), None)) is not None or None in right:
            raise ConfigurationError(
                f"Abstention.fit: the grade {odd!r} must be true or false; grade all of the answers"
            )
        known = [(as_plain_number(c), bool(good)) for c, good in zip(confidences, right, strict=True) if c is not None]
        for each, _ in known:
            check_share("Abstention.fit", "confidence", each)
        steps = _steps(known)
        below, answered, wrong = _lowest(steps, risk, confidence)
        total = len(right)
        curve = [(threshold, k / total, bad / k) for threshold, k, bad in steps]
        return cls(
            below=below, risk=risk, confidence=confidence, problems=total, answered=answered, wrong=wrong,
            needed=least_answered(risk, confidence), curve=tuple(_thinned(curve)),
        )  # fmt: skip

    @classmethod
    def of_pool(
        cls, pool: Pool, strategy: Strategy, *, risk: float = 0.05, confidence: float = 0.9,
        aggregate: Aggregate = "last",
    ) -> Self:  # fmt: skip
        """Find the threshold for a strategy, replayed on recorded and graded samples, its stop rule included.

        Raises:
            ConfigurationError: a share is out of range; the strategy asks for more than whole answers, or for a
                verifier where the pool has no scores.
            DataError: no problems, too few samples, or a sample without its grade or score.
        """
        check_risk("Abstention.of_pool", risk, confidence)
        check_aggregate("Abstention.of_pool", aggregate)
        if isinstance(strategy, type) or not callable(strategy):
            raise ConfigurationError(f"Abstention.of_pool: strategy={strategy!r:.80} is not a strategy; pass an object")
        confidences, right = choices_of(pool, strategy, aggregate)
        return cls.fit(confidences, right, risk=risk, confidence=confidence)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        _files.write(path, FORMAT, self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the file is something else; names the file and the field.
        """
        return _files.read(path, FORMAT, cls, "threshold for abstention")


def choices_of(pool: Pool, strategy: Strategy, aggregate: Aggregate = "last") -> tuple[list[float | None], list[bool]]:
    """Return how sure the strategy is of its choice on each problem of a pool, and whether the choice is right.

    A strategy that goes by scores has no choice where a sample lacks one: such problems are left out.
    """
    from tts_plugins.pools import Pool

    given: Any = pool
    if not isinstance(given, Pool):
        raise ConfigurationError(f"Abstention.of_pool: pool={pool!r:.80} is not a Pool; read one with Pool.read(path)")
    if not pool.problems:
        raise DataError("the pool has no problems; record and grade some first")
    scored = [p for p in pool.problems if all(c.scored(aggregate) is not None for c in p.candidates)]
    of_scores = bool(scored) and getattr(strategy, "needs_scores", False)
    problems = scored if of_scores else pool.problems  # one that nobody scored is no reason to refuse the others
    verifier = (pool.header.verifier or "recorded scores") if scored and len(scored) == len(problems) else None
    confidences, right = list[float | None](), list[bool]()
    for problem in problems:
        run = RecordedRun(problem, model=pool.header.model, verifier=verifier, aggregate=aggregate)
        best, confidence = replayed(strategy, run)
        correct = best.output.correct
        if correct is None:
            raise DataError(f"problem {problem.id!r}: the chosen sample is not graded; grade all samples of the pool")
        confidences.append(confidence)
        right.append(correct)
    return confidences, right


def least_answered(risk: float, confidence: float) -> int:
    """Return the fewest answers, none of them wrong, that show a risk of at most `risk`.

    >>> least_answered(0.05, 0.9), least_answered(0.1, 0.9)
    (45, 22)
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk) - 1e-9)


def _steps(known: Sequence[tuple[float, bool]]) -> list[tuple[float, int, int]]:
    """Return each confidence from the highest down, with how many reach it and how many of these are wrong."""
    out: list[tuple[float, int, int]] = []
    wrong = 0
    for count, (confidence, good) in enumerate(sorted(known, key=lambda each: -each[0]), 1):
        wrong += not good
        if out and out[-1][0] == confidence:
            out.pop()
        out.append((confidence, count, wrong))
    return out


def _lowest(steps: Sequence[tuple[float, int, int]], risk: float, confidence: float) -> tuple[float | None, int, int]:
    found: tuple[float | None, int, int] = (None, 0, 0)
    for threshold, count, wrong in steps:
        if count < least_answered(risk, confidence):
            continue
        if _tail(wrong, count, risk) > 1 - confidence + 1e-12:
            break
        found = (threshold, count, wrong)
    return found


def _tail(wrong: int, count: int, risk: float) -> float:
    """Return the chance of at most so many wrong answers if the risk were `risk`."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        + k * math.log(risk) + (count - k) * math.log1p(-risk)
        for k in range(wrong + 1)
    ]  # fmt: skip
    return math.fsum(map(math.exp, logs))


def _thinned(curve: Sequence[Any]) -> list[Any]:
    if len(curve) <= _MOST_POINTS:
        return list(curve)
    places = {round(i * (len(curve) - 1) / (_MOST_POINTS - 1)) for i in range(_MOST_POINTS)}
    return [curve[i] for i in sorted(places)]


def check_risk(owner: str, risk: Any, confidence: Any) -> None:
    """Raise unless these make a promise: a risk above 0 and below 1, a confidence from 0.5 to below 1."""
    for name, value, least in (("abstain_risk", risk, None), ("confidence", confidence, 0.5)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < 1 or (least is not None and value < least):
            start = "above 0" if least is None else f"from {least}"
            raise ConfigurationError(f"{owner}: {name}={value!r} must be a number {start} and below 1")
