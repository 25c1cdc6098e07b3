"""Regressions of a fit: the gain of going on (ridge), and the chance that a candidate is right (logistic)."""

from __future__ import annotations

from copy import copy
from typing import Self

import numpy as np

from tts_plugins.policies._stopping.walks import Bools, Floats, Ints, Samples
from tts_plugins.selection import Select

ROUNDS = 6


class Solver:
    """Ridge regression on fixed functions of the states of many walks; states that are already decided are left out.

    The Gram matrix is computed once and serves every ridge.
    """

    def __init__(self, z: Floats, over: Bools, counts: Bools) -> None:
        self._z, self._open, self._counts = z[:, :-1], ~over[:, :-1], counts
        self._rows = self._z[self._open]
        self._size = max(len(self._rows), 1)
        self._products = self._rows.T @ self._rows / self._size
        self._inverse = self._products

    def with_ridge(self, ridge: float) -> Self:
        """Return a solver of the same walks with a ridge."""
        # Functions of the count alone cannot memorise a problem, so they get little ridge: a strong ridge then leaves a
        # rule that goes by the count.
        penalty = np.diag(np.where(self._counts, min(ridge, 0.01), ridge))
        penalty[0, 0] = 1e-9
        made = copy(self)
        made._inverse = np.linalg.inv(self._products + penalty) / self._size
        return made

    def improve(self, label: Floats, cost: Floats) -> Floats:
        """Alternate between fitting the gain of going on and going on where the fitted gain is positive."""
        walks, n = label.shape
        step = np.diff(label, axis=1) - cost[:, 1:]
        onward = self._open
        weights = np.zeros(self._z.shape[-1])
        for turn in range(ROUNDS):
            gain, later = np.empty((walks, n - 1)), np.zeros(walks)
            for t in range(n - 2, -1, -1):
                gain[:, t] = step[:, t] + later
                later = np.where(onward[:, t], gain[:, t], 0.0)
            fresh = self._inverse @ (self._rows.T @ gain[self._open])
            weights = fresh if turn < 2 else 0.5 * (fresh + weights)  # half steps end a cycle of two rules
            onward = self._open & (self._z @ weights > 0)
        return weights


def calibrated(samples: Samples, select: Select, train: Ints) -> Floats:
    """Return the probability that each candidate is right, (problems, candidates), by logistic regression on `train`.

    The regressors are the share of the candidate's answer among its problem's samples, the margin over the next answer,
    and scores where they are used.
    """
    x, weight = _traits(samples, select)
    rows = np.isin(np.arange(len(samples.sizes)), train)[:, None] & (weight > 0)
    if not rows.any():
        return np.zeros(samples.correct.shape)  # no answer could be read
    centre, spread = x[rows].mean(0), x[rows].std(0)
    z = (x - centre) / np.where(spread > 1e-9, spread, np.inf)
    z = np.concatenate([np.ones((*z.shape[:2], 1)), z], axis=-1)
    beta = _logistic(z[rows], samples.correct[rows], weight[rows])
    right: Floats = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
    # A candidate without an answer cannot be right by votes.
    return right if select == "best" else np.where(samples.answers >= 0, right, 0.0)


def _traits(samples: Samples, select: Select) -> tuple[Floats, Floats]:
    a, s = samples.answers, samples.scores
    there = np.arange(a.shape[1]) < samples.sizes[:, None]
    same = (a[:, :, None] == a[:, None, :]) & (a >= 0)[:, :, None] & there[:, None, :] & there[:, :, None]
    size, votes = samples.sizes[:, None], same.sum(2)
    mass = (same * s[:, None, :]).sum(2)
    other_votes = np.where(same, 0, votes[:, None, :]).max(2)
    other_mass = np.where(same, 0.0, mass[:, None, :]).max(2)
    share = [votes / size, (votes - other_votes) / size, np.log(np.maximum(votes, 1))]
    own = {
        "majority": [],
        "weighted": [mass / size, (mass - other_mass) / size, mass / np.maximum(votes, 1)],
        "best": [s, s * s],
    }[select]
    # For votes each different answer counts once, however many copies it has; for scores each candidate counts.
    weight = there / size if select == "best" else np.where(votes > 0, 1.0 / np.maximum(votes, 1), 0.0)
    return np.stack([*share, *own], axis=-1).astype(float), weight * there


def _logistic(x: Floats, y: Floats, weight: Floats, penalty: float = 0.1) -> Floats:
    beta = np.zeros(x.shape[1])
    ridge = penalty * np.eye(x.shape[1])
    ridge[0, 0] = 1e-6
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (weight * (y - p)) - ridge @ beta
        bend = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        step = np.linalg.solve(bend, slope)
        beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return beta
