"""Particle filtering over steps (Puri et al. 2025, 2502.01618): explore by the verifier's score, not by its maximum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from tts_plugins._internal.config import check_count, check_straggler
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.selection import Select
from tts_plugins.strategies._base import BaseStrategy
from tts_plugins.strategies._search import check_select, conclude, grow, need_verifier
from tts_plugins.types import Candidate, Problem, Scored

if TYPE_CHECKING:
    from random import Random

Resampling = Literal["systematic", "multinomial"]
_EDGE = 1e-6  # logits of 0 and 1 are infinite


@dataclass(frozen=True, kw_only=True)
class ParticleFilter(BaseStrategy):
    """`n` partial solutions; after every step they are drawn anew, in proportion to exp(logit of score / temperature).

    A particle that is finished stays among them, is drawn like the others, and costs nothing more.

    Args:
        n: particles.
        max_steps: steps of a particle at most.
        resampling: "systematic" (one random number a round, least variance) or "multinomial".
        temperature: above 1 explores more, below 1 follows the verifier more closely.
        select: how the last particles are chosen from.
        straggler: a round waits for a particle at most this many times as long as the median one took; the late ones
            are cancelled, and charged. None waits for all.

    A verifier's raw score, where it stands in `details["logit"]` as a number, is taken: it may lie
    outside of [0, 1].

    Raises:
        ConfigurationError, AllCandidatesFailed: as for `BeamSearch`.
    """

    n: int = 16
    max_steps: int = 40
    resampling: Resampling = "systematic"
    temperature: float = 1.0
    select: Select = "weighted"
    straggler: float | None = None

    def __post_init__(self) -> None:
        check_count("ParticleFilter", "n", self.n)
        check_count("ParticleFilter", "max_steps", self.max_steps)
        check_select("ParticleFilter", self.select)
        check_straggler("ParticleFilter", self.straggler)
        if self.resampling not in ("systematic", "multinomial"):
            raise ConfigurationError(
                f"ParticleFilter: resampling={self.resampling!r} is not known; use 'systematic' or 'multinomial'"
            )
        t: object = self.temperature
        if not is_number(t) or t <= 0:
            raise ConfigurationError(f"ParticleFilter: temperature={t!r} must be a finite number above 0")

    def calls(self) -> tuple[int, int]:
        """The least and the most generations that it asks for."""
        return self.n, self.n * self.max_steps

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        if self.n > 1:
            need_verifier(run, f"ParticleFilter(n={self.n})", "SelfConsistency")
        living: Sequence[Candidate] = [Candidate(problem)]
        finished: list[Scored] = []
        particles: list[Scored] = []
        for _ in range(self.max_steps):
            whole = any(c.finished for c in particles)
            children = await grow(run, living, self.n - len(finished), whole=whole, straggler=self.straggler)
            if not children:
                break
            particles = finished + children
            if all(c.finished for c in particles):
                break
            drawn = self._resampled(particles, run.rng)
            run.prune([c for c in children if c not in drawn])
            finished, living = [c for c in drawn if c.finished], [c for c in drawn if not c.finished]
            if not living:
                particles = finished
                break
        else:
            run.note("max_steps", steps=self.max_steps, unfinished=sum(not c.finished for c in particles))
        return conclude(
            run, [c for c in particles if c.finished], [c for c in particles if not c.finished], self.select
        )

    def _resampled(self, particles: Sequence[Scored], rng: Random) -> list[Scored]:
        if len(particles) == 1:
            return list(particles) * self.n
        weights = softmax([logit(c) / self.temperature for c in particles])
        draw = systematic if self.resampling == "systematic" else multinomial
        return [particles[i] for i in draw(weights, self.n, rng)]


def logit(candidate: Scored) -> float:
    """Log-odds of the score; the verifier's raw value where it gives one."""
    raw = candidate.details.get("logit")
    if is_number(raw):
        return float(raw)
    if candidate.score is None:
        raise ValueError(f"candidate {candidate.id} has no score; pass a verifier")
    p = min(max(candidate.score, _EDGE), 1 - _EDGE)
    return math.log(p / (1 - p))


def softmax(values: Sequence[float]) -> list[float]:
    """Weights that sum to 1."""
    highest = max(values)
    exps = [math.exp(v - highest) for v in values]
    total = math.fsum(exps)
    return [e / total for e in exps]


def systematic(weights: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` places by one random offset: each is drawn floor or ceiling of n times its weight."""
    offset, bounds = rng.random(), list(accumulate(weights))
    out, place = list[int](), 0
    for k in range(n):
        while place < len(bounds) - 1 and (k + offset) / n >= bounds[place]:
            place += 1
        out.append(place)
    return out


def multinomial(weights: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` independent places."""
    return sorted(rng.choices(range(len(weights)), weights, k=n))
