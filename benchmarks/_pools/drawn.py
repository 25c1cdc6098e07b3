"""Pools that are drawn anew as often as one likes, of kinds that recorded pools are like: for what needs many draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
}
VOTES = tuple(name for name, kind in KINDS.items() if kind.select == "majority")


def draw(name: str, problems: int, n: int, seed: int) -> Pool:
    """A pool of this kind with `n` candidates for each problem; the same seed gives the same pool."""
    kind, rng = KINDS[name], np.random.default_rng(seed)
    made = tuple(_problem(kind, n, i, rng) for i in range(problems))
    verifier = None if kind.select == "majority" else "drawn"
    return Pool(header=PoolHeader(model=name, dataset="drawn", licence="CC0-1.0", verifier=verifier), problems=made)


def _problem(kind: Kind, n: int, number: int, rng: np.random.Generator) -> PoolProblem:
    ease = rng.beta(1, 25) if rng.random() < kind.hopeless else rng.beta(*kind.ease)
    shares = rng.dirichlet(np.full(kind.wrong[0], kind.wrong[1]))
    answers = rng.choice(1 + len(shares), size=n, p=np.concatenate([[ease], (1 - ease) * shares]))
    tokens = 1 + rng.gamma(8, 25 * (2 - ease), size=n).astype(int)
    if kind.exact:
        scores = (answers == 0).astype(float)
    elif kind.scores is not None:
        scores = np.where(answers == 0, rng.beta(*kind.scores[0], size=n), rng.beta(*kind.scores[1], size=n))
    candidates = tuple(
        PoolCandidate(
            text="", answer=str(answers[i]), tokens=int(tokens[i]), correct=bool(answers[i] == 0), step_scores=(),
            score=None if kind.select == "majority" else float(scores[i]),
        )
        for i in range(n)
    )  # fmt: skip
    return PoolProblem(id=f"p{number}", prompt="drawn", answer="0", level=1, candidates=candidates)
