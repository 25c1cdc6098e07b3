"""What a learned verifier sees of a solution's beginning: its hidden state, how sure its writer was, how long it is.

The same for training and for scoring. Pure but for the one function that asks for vectors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_plugins.errors import DataError
from tts_plugins.pools import Pool, PoolCandidate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]

SPEC = 1  # of the features; a head is read only with the version that it was fitted to
LENGTHS, SURE = 2, 2  # columns before the vector: steps and characters; mean and least log-probability
_LEAST = -20.0  # a less likely token carries no more information
_BATCH = 16  # texts in one request


@dataclass(frozen=True, kw_only=True)
class Table:
    """Beginnings of solutions as rows.

    Attributes:
        x: (rows, features).
        labels: (rows,), shares of continuations that end right.
        problem, solution: (rows,), the places in the pool of what a row is of.
        logprobs: whether the columns of log-probabilities are there.
    """

    x: Floats
    labels: Floats
    problem: Ints
    solution: Ints
    logprobs: bool

    def of(self, problems: Sequence[int]) -> Table:
        """Return the rows of these problems."""
        rows = np.isin(self.problem, problems)
        return Table(
            x=self.x[rows], labels=self.labels[rows], problem=self.problem[rows], solution=self.solution[rows],
            logprobs=self.logprobs,
        )  # fmt: skip


def texts(problem: str, steps: Sequence[str]) -> list[str]:
    """Return what is embedded for each step: the problem, and the solution up to the end of the step."""
    return [f"{problem}\n\n" + "\n".join(steps[:i]) for i in range(1, len(steps) + 1)]


def rows(steps: Sequence[str], vectors: Sequence[Sequence[float]], logprobs: Sequence[float] | None) -> Floats:
    """Return a row for each step, (steps, features).

    A token's place in the text is not known, only its place among the tokens: those of a beginning are taken to be as
    many of all as its characters are.
    """
    ends = np.cumsum([len(step) + 1 for step in steps])
    parts = [np.log1p(np.arange(1, len(steps) + 1))[:, None], np.log1p(ends)[:, None]]
    if logprobs is not None:
        values = np.maximum(np.asarray(logprobs, dtype=float), _LEAST)
        counts = np.clip(np.rint(len(values) * ends / ends[-1]).astype(int), 1, len(values))
        parts += [
            np.array([values[:count].mean() for count in counts])[:, None],
            np.minimum.accumulate(values)[counts - 1][:, None],
        ]
    return np.concatenate([*parts, np.asarray(vectors, dtype=float)], axis=1)


async def table_of(pool: Pool, embed: Embed, progress: Callable[[int, int], None] | None = None) -> Table:
    """Return the rows of all labelled solutions of a pool, with each text embedded once.

    Raises:
        DataError: a candidate has no steps, or not a label for each.
        ModelError: the vectors could not be had.
    """
    found = [
        (i, j, _checked(f"problem {p.id!r}, candidates[{j}]", c), p.prompt or "", c)
        for i, p in enumerate(pool.problems)
        for j, c in enumerate(p.candidates)
    ]
    if not found:
        raise DataError("the rollouts hold no labelled solution; make some with `tts-plugins rollouts`")
    wanted = list(dict.fromkeys(text for _, _, steps, prompt, _ in found for text in texts(prompt, steps)))
    vectors: dict[str, Sequence[float]] = {}
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        vectors |= zip(part, await embed(part), strict=True)
        if progress is not None:
            progress(len(vectors), len(wanted))
    sure = all(c.extra.get("logprobs") for *_, c in found)
    made = [
        rows(steps, [vectors[text] for text in texts(prompt, steps)], c.extra["logprobs"] if sure else None)
        for _, _, steps, prompt, c in found
    ]
    lengths = [len(steps) for _, _, steps, _, _ in found]
    return Table(
        x=np.concatenate(made),
        labels=np.array([label for *_, c in found for label in c.step_scores]),
        problem=np.repeat([i for i, *_ in found], lengths),
        solution=np.repeat([j for _, j, *_ in found], lengths),
        logprobs=sure,
    )


def _checked(where: str, candidate: PoolCandidate) -> list[str]:
    steps: Any = candidate.extra.get("steps")
    if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s for s in steps):
        raise DataError(
            f"{where}, steps: {str(steps)[:60]} must be a list of texts; make it with `tts-plugins rollouts`"
        )
    if len(steps) != len(candidate.step_scores):
        raise DataError(f"{where}, step_scores: {len(candidate.step_scores)} labels for {len(steps)} steps")
    sure: Any = candidate.extra.get("logprobs", [])
    if not isinstance(sure, list) or not all(isinstance(v, int | float) and v == v for v in sure):
        raise DataError(f"{where}, logprobs: {str(sure)[:60]} must be a list of numbers")
    return steps
