"""A logistic head on fixed features: cross-entropy on soft labels, L2, early stopping on problems held out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_plugins.errors import ConfigurationError
from tts_plugins.verifiers.learned._features import Floats, Table

PENALTIES = (0.001, 0.01, 0.1, 1.0)
ROUNDS, PATIENCE = 400, 40


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Weights on raw features, and how they were found.

    Attributes:
        rounds, penalty: the medians over the parts, of those that were best on the problems held out for stopping.
        loss, base_loss: cross-entropy on these, in nats a step, and that of the mean label of the others.
    """

    weights: Floats
    bias: float
    penalty: float
    rounds: int
    loss: float
    base_loss: float

    def __call__(self, x: Floats) -> Floats:
        """Return the probability of each row."""
        return _sigmoid(x @ self.weights + self.bias)


def fit_head(table: Table, *, validation: float, seed: int) -> Fitted:
    """Return the mean of heads, each of them the best on a share of the problems that it was not trained on.

    With few problems, those that one head stops by say little: one in four stopped after a single round. So each
    problem is held out once, and the logits of all heads are averaged, which is one linear head again.

    Raises:
        ConfigurationError: fewer than four problems, or labels that are all the same.
    """
    problems = np.unique(table.problem)
    if len(problems) < 4:
        raise ConfigurationError(f"LearnedVerifier.fit: {len(problems)} problems with labels; give at least 4")
    if np.ptp(table.labels) < 1e-9:
        raise ConfigurationError(
            f"LearnedVerifier.fit: all labels are {table.labels[0]:g}, which teaches nothing; take problems that the "
            "model solves sometimes"
        )
    parts = min(len(problems), max(2, round(1 / validation)))
    order = np.random.default_rng(seed).permutation(problems)
    heads = [_one(table, set(map(int, order[i::parts]))) for i in range(parts)]
    return Fitted(
        weights=np.mean([h.weights for h in heads], axis=0),
        bias=float(np.mean([h.bias for h in heads])),
        penalty=float(np.median([h.penalty for h in heads])),
        rounds=int(np.median([h.rounds for h in heads])),
        loss=float(np.mean([h.loss for h in heads])),
        base_loss=float(np.mean([h.base_loss for h in heads])),
    )


def _one(table: Table, outside: set[int]) -> Fitted:
    """Return the head that is best on the problems outside of its training.

    Accelerated gradient descent with the step that the curvature allows, so that no rate has to be tuned; the weights
    kept are those of the round and the penalty with the least cross-entropy there.
    """
    train = table.of([p for p in map(int, np.unique(table.problem)) if p not in outside])
    stop = table.of(sorted(outside))
    centre, spread = train.x.mean(0), train.x.std(0)
    scale = np.where(spread > 1e-9, spread, np.inf)  # a feature that never varied gets weight 0
    z, held = (train.x - centre) / scale, (stop.x - centre) / scale
    mean = float(np.clip(train.labels.mean(), 1e-3, 1 - 1e-3))
    curve = [_descend(z, train.labels, held, stop.labels, penalty, mean) for penalty in PENALTIES]
    best = min(range(len(curve)), key=lambda i: curve[i][0])
    loss, rounds, weights, bias = curve[best]
    raw = weights / scale
    return Fitted(
        weights=raw, bias=float(bias - raw @ centre), penalty=PENALTIES[best], rounds=rounds, loss=loss,
        base_loss=_loss(np.full(len(stop.labels), mean), stop.labels),
    )  # fmt: skip


def _descend(
    z: Floats, labels: Floats, held: Floats, held_labels: Floats, penalty: float, mean: float
) -> tuple[float, int, Floats, float]:
    """Return loss, round, weights and intercept of the best round (Nesterov's method, from the mean label on)."""
    bias = float(np.log(mean / (1 - mean)))
    now = np.concatenate([np.zeros(z.shape[1]), [bias]])
    ones = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    ridge = np.concatenate([np.full(z.shape[1], penalty), [0.0]])
    rate = 1.0 / (0.25 * np.linalg.norm(ones, 2) ** 2 / len(ones) + penalty)
    best, before = (_loss(_sigmoid(held @ now[:-1] + now[-1]), held_labels), 0, now[:-1], bias), now
    for turn in range(1, ROUNDS + 1):
        ahead = now + (turn - 1) / (turn + 2) * (now - before)
        slope = ones.T @ (_sigmoid(ones @ ahead) - labels) / len(ones) + ridge * ahead
        before, now = now, ahead - rate * slope
        loss = _loss(_sigmoid(held @ now[:-1] + now[-1]), held_labels)
        if loss < best[0] - 1e-7:
            best = loss, turn, now[:-1], float(now[-1])
        elif turn - best[1] >= PATIENCE:
            break
    return best


def _loss(predicted: Floats, labels: Floats) -> float:
    p = np.clip(predicted, 1e-9, 1 - 1e-9)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


def _sigmoid(x: Floats) -> Floats:
    out: Floats = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return out
