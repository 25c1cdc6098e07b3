"""Pools that are drawn anew as often as one likes, of kinds that recorded pools are like: for what needs many draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tts_plugins.policies import LearnedStopping
from tts_plugins.policies._stopping.features import ahead
from tts_plugins.policies._stopping.threshold_rules import ThresholdRule, ThresholdRules
from tts_plugins.policies._stopping.walks import Bools, Floats, Samples, walk
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.selection import Select


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How problems of a kind are drawn.

    Attributes:
        ease: Beta parameters of the chance that a sample is right.
        wrong: how many wrong answers there are, and how evenly they are given (Dirichlet; small: one is popular).
        hopeless: the share of problems that are hardly ever right.
        scores: Beta parameters of a right candidate's score and of a wrong one's; None for bare votes.
    """

    ease: tuple[float, float]
    wrong: tuple[int, float]
    hopeless: float = 0.0
    scores: tuple[tuple[float, float], tuple[float, float]] | None = None
    exact: bool = False

    @property
    def select(self) -> Select:
        """The way to choose that it has the records for."""
        return "best" if self.exact else "majority" if self.scores is None else "weighted"


KINDS = {
    "even": Kind(ease=(1, 1), wrong=(12, 0.5)),
    "easy": Kind(ease=(4, 1.5), wrong=(12, 0.5)),
    "hard": Kind(ease=(0.8, 1.8), wrong=(30, 0.3)),
    "two groups": Kind(ease=(9, 1.5), wrong=(12, 0.5), hopeless=0.5),
    "popular errors": Kind(ease=(2, 2), wrong=(3, 0.25)),
    "four choices": Kind(ease=(1.5, 1), wrong=(3, 1.0)),
    "sharp scores": Kind(ease=(1, 1), wrong=(12, 0.5), scores=((6, 1.5), (1.5, 4))),
    "blurred scores": Kind(ease=(1, 1), wrong=(12, 0.5), scores=((4, 3), (3, 4))),
    "exact checks": Kind(ease=(0.8, 1.8), wrong=(30, 0.3), exact=True),
    # The moments of recorded pools: the mean and the variance, over problems, of the chance of a right sample, and how
    # often two wrong samples of a problem agree. Models are nearly sure of most problems, or nearly lost: the chances
    # are U-shaped, or lean to one end, unlike those above. The last four are of `benchmarks.public_pools`: dates by
    # GPT-3.5, and GPQA Diamond and MATH-500 with the mean over all reasoning models.
    "as Game of 24": Kind(ease=(0.21, 5.05), wrong=(60, 0.35)),
    "as MATH": Kind(ease=(0.36, 0.46), wrong=(30, 0.24)),
    "as last letters": Kind(ease=(0.28, 0.07), wrong=(3, 0.41)),
    "as dates": Kind(ease=(0.21, 0.13), wrong=(18, 0.05)),
    "as GPQA": Kind(ease=(0.46, 0.24), wrong=(3, 0.51)),
    "as MATH-500": Kind(ease=(0.68, 0.031), wrong=(3, 1.07)),
}
VOTES = ("even", "easy", "hard", "two groups", "popular errors", "four choices")
AS_RECORDED = ("as Game of 24", "as MATH", "as last letters", "as dates", "as GPQA", "as MATH-500")


def draw(name: str, problems: int, n: int, seed: int) -> Pool:
    """A pool of this kind with `n` candidates for each problem; the same seed gives the same pool."""
    kind, drawn = KINDS[name], samples(name, problems, n, seed)
    made = tuple(_problem(i, drawn, scored=kind.select != "majority") for i in range(problems))
    verifier = None if kind.select == "majority" else "drawn"
    return Pool(header=PoolHeader(model=name, dataset="drawn", licence="CC0-1.0", verifier=verifier), problems=made)


def samples(name: str, problems: int, n: int, seed: int) -> Samples:
    """The same as arrays, for more problems than a pool can hold; the answer 0 is right."""
    kind, rng = KINDS[name], np.random.default_rng(seed)
    hopeless = rng.random(problems) < kind.hopeless
    ease = np.where(hopeless, rng.beta(1, 25, problems), rng.beta(*kind.ease, problems))[:, None]
    shares = rng.dirichlet(np.full(kind.wrong[0], kind.wrong[1]), problems)
    upto = np.concatenate([ease, (1 - ease) * shares], axis=1).cumsum(1)[:, :-1]
    answers = (rng.random((problems, n))[:, :, None] > upto[:, None, :]).sum(2)
    right = answers == 0
    scores = np.zeros((problems, n))
    if kind.exact:
        scores = right.astype(float)
    elif kind.scores is not None:
        scores = np.where(right, *(rng.beta(*shape, (problems, n)) for shape in kind.scores))
    return Samples(
        answers=answers, tokens=1.0 + rng.gamma(8, 25 * (2 - ease), (problems, n)).astype(int), scores=scores,
        correct=right.astype(float), blank=np.zeros((problems, n), dtype=np.bool_), sizes=np.full(problems, n),
    )  # fmt: skip


def _problem(number: int, drawn: Samples, *, scored: bool) -> PoolProblem:
    candidates = tuple(
        PoolCandidate(
            text="", answer=str(answer), tokens=int(tokens), correct=bool(answer == 0), step_scores=(),
            score=float(score) if scored else None,
        )
        for answer, tokens, score in zip(drawn.answers[number], drawn.tokens[number], drawn.scores[number], strict=True)
    )  # fmt: skip
    return PoolProblem(id=f"p{number}", prompt="drawn", answer="0", level=1, candidates=candidates)


class Walked:
    """Walks through drawn problems with bare votes: what each simple rule loses there, and what it takes.

    Attributes:
        full: (problems,), how often the choice among all samples is right.
        tokens: the mean of all samples of a problem.
    """

    def __init__(self, drawn: Sequence[Samples], n: int, orders: int, seed: int) -> None:
        parts = [self._part(each, n, orders, seed + i) for i, each in enumerate(drawn)]
        lead, over, right, cost = (np.concatenate(each) for each in zip(*parts, strict=True))
        count = np.broadcast_to(np.arange(1, n + 1), lead.shape)
        self._rules = ThresholdRules(lead, count, over, right, cost, orders, "majority")
        self._known: dict[ThresholdRule, tuple[Floats, float]] = {}
        self.full, self.tokens = right[:, -1].reshape(-1, orders).mean(1), float(cost[:, -1].mean())

    @staticmethod
    def _part(drawn: Samples, n: int, orders: int, seed: int) -> tuple[Floats, Bools, Floats, Floats]:
        paths = walk(drawn, n, "majority", orders=orders, seed=seed, reference=1.0)
        lead = ahead(paths.state, "majority")
        return lead, paths.decided(n, "majority"), paths.labels(drawn.correct), paths.tokens.cumsum(1)

    def outcome(self, rule: ThresholdRule) -> tuple[Floats, float]:
        """What a rule loses on each problem against all samples, and the mean tokens that it takes."""
        if rule not in self._known:
            found = self._rules.totals_of(rule)
            self._known[rule] = self.full - found.right, float(found.cost.mean())
        return self._known[rule]


class Population:
    """So many problems of a kind of votes that what a rule loses there is all but the true loss: within about .001."""

    def __init__(self, name: str, n: int, problems: int = 60_000) -> None:
        parts = [samples(name, _PART, n, seed) for seed in range(1, 1 + max(1, problems // _PART))]
        self._walked = Walked(parts, n, orders=1, seed=1)
        self._known: dict[ThresholdRule, tuple[float, float]] = {}

    def measure(self, _: Select, rule: LearnedStopping) -> tuple[float, float]:
        """Accuracy lost to all samples, and how many times fewer tokens the rule took, which has no weights."""
        return self.outcome(ThresholdRule(rule.enough, rule.at_most, rule.fade))

    def outcome(self, rule: ThresholdRule) -> tuple[float, float]:
        """The same of a simple rule."""
        if rule not in self._known:
            lost, tokens = self._walked.outcome(rule)
            self._known[rule] = float(lost.mean()), self._walked.tokens / tokens
        return self._known[rule]


_PART = 10_000
