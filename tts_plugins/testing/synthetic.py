"""Pools that nobody recorded: for tests and examples that need a pool and have none."""

from __future__ import annotations

import random

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem


def synthetic_pool(
    problems: int = 40, candidates: int = 24, *, seed: int = 0, exact: bool = False, strength: float = 1.0
) -> Pool:
    """Return a pool that looks like recorded samples of a maths set.

    Problems run from easy to hopeless; hard ones are longer, and their wrong answers scatter. Right candidates score
    higher than wrong ones on average; with `exact`, the score is 1 for a right one and 0 for a wrong one. With the same
    `seed`, a `strength` above 1 is a larger model on the same problems: of those that another one gets right with
    probability p, it gets p ** (1 / strength).
    """
    check_count("synthetic_pool", "problems", problems)
    check_count("synthetic_pool", "candidates", candidates)
    if not is_number(strength) or not strength > 0:
        raise ConfigurationError(f"synthetic_pool: strength={strength!r} must be a number above 0")
    rng, own = random.Random(seed), random.Random(f"{seed}/{strength}")
    made = []
    for i in range(problems):
        ease = max(0.0, min(1.0, 1.15 * rng.random() - 0.15))  # one in eight is hopeless
        gold = 1000 + 17 * i  # farther apart than its wrong answers reach
        said = tuple[PoolCandidate, ...]()
        wrong = [gold + 1 + k for k in range(1 + round(9 * (1 - ease)))]
        for draw, p in ((rng, ease), (own, ease ** (1 / strength)))[: 1 if strength == 1 else 2]:
            said = tuple(_candidate(draw, p, gold, wrong, exact) for _ in range(candidates))
        made.append(
            PoolProblem(
                id=f"p{i}",
                prompt=f"What is {gold - 11} + 11?",
                answer=str(gold),
                level=1 + round(4 * (1 - ease)),
                candidates=said,
            )
        )
    name = "synthetic" if strength == 1 else f"synthetic-{strength:g}"
    header = PoolHeader(model=name, dataset="sums", licence="CC0-1.0", verifier="synthetic")
    return Pool(header=header, problems=tuple(made))


def _candidate(rng: random.Random, ease: float, gold: int, wrong: list[int], exact: bool) -> PoolCandidate:
    right = rng.random() < ease
    answer = gold if right else rng.choices(wrong, [1 / (k + 1) for k in range(len(wrong))])[0]
    score = float(right) if exact else rng.betavariate(5, 2) if right else rng.betavariate(2, 3)
    return PoolCandidate(
        text=f"The answer is {answer}.",
        answer=str(answer),
        tokens=round(rng.gammavariate(8, 25 * (2 - ease))),
        correct=right,
        step_scores=() if exact else (0.9, score),
        score=score if exact else None,
    )
