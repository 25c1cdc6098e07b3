"""Walks through recorded problems in many orders: the state, the choice and the tokens after each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._stopping.features import State, decided
from tts_plugins.pools import PoolProblem
from tts_plugins.selection import Aggregate, Select

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


_NEEDED = {
    "correct": "a fit needs every sample graded; record problems with their answers, or set correct",
    "tokens": "a fit weighs tokens against accuracy; record with a server that counts them, or use stop='balanced', "
    "which needs no fit",
    "score": "a fit that goes by scores needs all of them; score it, or choose by votes",
}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The candidates of some problems as rows, padded where a problem has fewer than others.

    Attributes:
        answers: (problems, candidates), a number for each different answer of a problem, -1 for no answer.
        tokens, scores, correct: (problems, candidates).
        blank: (problems, candidates), which candidates say nothing; no rule sees them when it runs.
        sizes: (problems,), the number of candidates.
    """

    answers: Ints
    tokens: Floats
    scores: Floats
    correct: Floats
    blank: Bools
    sizes: Ints

    @classmethod
    def of(cls, problems: Sequence[PoolProblem], n: int, select: Select, how: Aggregate) -> Samples:
        """Read the candidates of graded problems.

        Raises:
            ConfigurationError: no problems.
            DataError: one has fewer than `n` candidates, or a candidate lacks its grade, tokens, or score where
                `select` goes by scores.
        """
        if not problems:
            raise ConfigurationError("LearnedStopping: there are no problems to fit to; is the fold empty?")
        width = max(len(p.candidates) for p in problems)
        made = cls(
            answers=np.full((len(problems), width), -1),
            tokens=np.zeros((len(problems), width)),
            scores=np.zeros((len(problems), width)),
            correct=np.zeros((len(problems), width)),
            blank=np.zeros((len(problems), width), dtype=np.bool_),
            sizes=np.array([len(p.candidates) for p in problems]),
        )
        for row, p in enumerate(problems):
            if len(p.candidates) < n:
                raise DataError(f"problem {p.id!r} has {len(p.candidates)} candidates; lower n={n}, or record more")
            known: dict[str, int] = {}
            for i, c in enumerate(p.candidates):
                score = 0.0 if select == "majority" else c.scored(how)
                for name, value in (("correct", c.correct), ("tokens", c.counted), ("score", score)):
                    if value is None:
                        found = "is 0, though it says something" if name == "tokens" and c.tokens == 0 else "is null"
                        raise DataError(f"problem {p.id!r}, candidates[{i}], {name}: {found}; {_NEEDED[name]}")
                made.answers[row, i] = -1 if c.answer is None else known.setdefault(c.answer, len(known))
                made.tokens[row, i], made.scores[row, i], made.correct[row, i] = c.tokens, score, c.correct
                made.blank[row, i] = c.blank
        return made

    @property
    def graded(self) -> bool:
        """Whether scores are more than a yes or a no, for which a threshold is enough."""
        there = np.arange(self.tokens.shape[1]) < self.sizes[:, None]
        return len(np.unique(self.scores[there])) > 2


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Walks of `n` candidates, `orders` for each problem; arrays are (walks, n) except `problem`.

    Attributes:
        state: the state of the run after each candidate.
        chosen: the index, within its problem, of the candidate that would be chosen then.
        tokens, answers: of each candidate.
        taken: the index of each candidate within its problem.
        blanks: how many candidates said nothing so far.
        problem: (walks,), the row of its problem.
    """

    state: State
    chosen: Ints
    taken: Ints
    tokens: Floats
    answers: Ints
    blanks: Ints
    problem: Ints

    @property
    def heard(self) -> Bools:
        """(walks, n), whether any candidate has said something yet: before that no rule is asked."""
        n = self.blanks.shape[1]
        found: Bools = self.blanks < np.arange(1, n + 1)
        return found

    def decided(self, n: int, select: Select) -> Bools:
        """Return whether the choice among `n` candidates can no longer change after each of them."""
        found: Bools = np.asarray(decided(self.state, n - self.blanks, select)) & self.heard
        return found

    def labels(self, table: Floats) -> Floats:
        """Look a (problems, candidates) table up at the choices."""
        found: Floats = table[self.problem[:, None], self.chosen]
        return found


def walk(samples: Samples, n: int, select: Select, *, orders: int, seed: int, reference: float) -> Paths:
    """Make `orders` shuffled walks for each problem, drawing its samples without replacement."""
    rng = np.random.default_rng(seed)
    problem = np.repeat(np.arange(len(samples.sizes)), orders)
    taken = np.stack([rng.permutation(samples.sizes[p])[:n] for p in problem])
    seen = [getattr(samples, name)[problem[:, None], taken] for name in ("answers", "tokens", "scores", "blank")]
    states, chosen = _states(seen[0], seen[1], seen[2], seen[3], select, reference)
    rows = np.arange(len(problem))
    return Paths(
        state=states,
        chosen=np.stack([taken[rows, place] for place in chosen], axis=1),
        taken=taken,
        tokens=seen[1],
        answers=seen[0],
        blanks=seen[3].cumsum(1),
        problem=problem,
    )


def _states(
    answers: Ints, tokens: Floats, scores: Floats, blank: Bools, select: Select, reference: float
) -> tuple[State, list[Ints]]:
    """Return the state after each candidate, and the position in the walk of the candidate that is chosen then.

    A blank candidate leaves the state as it was: rules see only candidates that say something.
    """
    walks, n = answers.shape
    rows = np.arange(walks)
    width = max(int(answers.max()) + 1, 1)
    votes, mass = np.zeros((walks, width)), np.zeros((walks, width))
    since, top = np.full((walks, width), n), np.full((walks, width), -1.0)
    member = np.zeros((walks, width), dtype=np.int64)  # the best candidate of each answer
    best, second, mean_sum = np.full(walks, -1.0), np.zeros(walks), np.zeros(walks)
    best_at, first_at = np.zeros(walks, dtype=np.int64), np.zeros((walks, width), dtype=np.int64)
    total, heard, columns, places = np.zeros(walks), np.zeros(walks), list[list[Any]](), list[Ints]()
    first_said = (~blank).argmax(1)
    for t in range(n):
        said, a = ~blank[:, t], answers[:, t]
        s = np.where(said, scores[:, t], -1.0)  # what is blank is not the best of anything
        heard += said
        total += np.where(said, tokens[:, t], 0.0)
        mean_sum += np.where(said, s, 0.0)
        r, got = rows[a >= 0], a[a >= 0]
        first_at[r, got] = np.where(votes[r, got] == 0, t, first_at[r, got])
        since[r, got] = np.minimum(since[r, got], t)
        votes[r, got] += 1
        mass[r, got] += s[a >= 0]
        better = s[a >= 0] > top[r, got]
        member[r, got] = np.where(better, t, member[r, got])
        top[r, got] = np.maximum(top[r, got], s[a >= 0])
        second = np.where(s > best, np.maximum(best, 0.0), np.maximum(second, s))
        best_at = np.where(s > best, t, best_at)
        best = np.maximum(best, s)
        # Round, so that equal sums compare equal in any order of summing; the answer seen first leads among them.
        going = np.where(votes > 0, np.round(mass if select == "weighted" else votes, 9) - 1e-12 * since, -1.0)
        leader = answers[rows, best_at] if select == "best" else np.where(votes.sum(1) > 0, going.argmax(1), -1)
        held = np.maximum(leader, 0)
        rest_votes, rest_mass = votes.copy(), mass.copy()
        rest_votes[rows, held] = rest_mass[rows, held] = 0.0
        has = leader >= 0
        v1 = np.where(has, votes[rows, held], 0.0)
        v2 = np.where(has, rest_votes.max(1), votes.max(1))
        firsts = {"best": np.maximum(best, 0.0), "majority": v1, "weighted": np.where(has, mass[rows, held], 0.0)}
        seconds = {"best": second, "majority": v2, "weighted": rest_mass.max(1)}
        count = np.maximum(heard, 1.0)
        length = np.where(total > 0, total / count / reference, 1.0) if reference else np.ones(walks)
        led = np.where(has, mass[rows, held] / np.maximum(votes[rows, held], 1), 0.0)
        columns.append([
            count, firsts[select], seconds[select], v1, v2, (votes > 0).sum(1) * 1.0,
            heard - votes.sum(1), length, np.maximum(best, 0.0), mean_sum / count, led,
        ])  # fmt: skip
        voted = member[rows, held] if select == "weighted" else first_at[rows, held]
        lone = best_at if select != "majority" else np.minimum(first_said, t)
        places.append(best_at.copy() if select == "best" else np.where(has, voted, lone))
    return State(*(np.stack(field, axis=1) for field in zip(*columns, strict=True))), places
