"""The cost of samples: each has its own tokens, and each request its prompt. Samples sent together share a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tts_plugins.policies._stopping.walks import Floats, Ints
from tts_plugins.pools import PoolProblem
from tts_plugins.stopping import wave_growth
from tts_plugins.strategies import BestOfN, SelfConsistency

Least = Callable[[Ints, Ints], Ints]  # rows, samples of each so far -> the fewest further ones before it could stop


class Paid(NamedTuple):
    """What walks pay for, (walks,) each: tokens, samples, and rounds, which wait for each other."""

    tokens: Floats
    samples: Floats
    rounds: Floats


def prompts_of(problems: Sequence[PoolProblem]) -> Floats:
    """Return the tokens of each problem's prompt; unknown ones get the mean of the others, or 0 if all are unknown."""
    counts = [p.prompt_tokens for p in problems if p.prompt_tokens is not None]
    mean = sum(counts) / len(counts) if counts else 0.0
    return np.array([mean if p.prompt_tokens is None else p.prompt_tokens for p in problems], dtype=float)


class Bill:
    """Computes what walks of samples cost.

    Args:
        tokens: (walks, n), of each sample.
        prompts: (walks,), of one request.
        extra: of each sample besides.
        batch: samples of one request at most; None for any number.
    """

    def __init__(self, tokens: Floats, prompts: Floats, *, extra: float, batch: int | None) -> None:
        self._upto = np.concatenate([np.zeros((len(tokens), 1)), (tokens + extra).cumsum(1)], axis=1)
        self._prompts, self._batch = prompts, batch

    def paid(self, strategy: BestOfN | SelfConsistency, at: Ints, start: int, until: int, least: Least) -> Paid:
        """Return the bill of a strategy that has `start` samples and goes on to its stop `at`, or to `until`.

        It follows the engine's waves: of a fixed size, or each as large as the rule needs at least, and by its growth
        larger than the one before. A wave is paid for as a whole, including samples after the stop.
        """
        stops, end = np.minimum(at, until), min(until, strategy.n)
        sent = np.full(len(at), start)
        size, requests, rounds = np.zeros_like(sent), np.zeros_like(sent), np.zeros_like(sent)
        while len(rows := np.flatnonzero(sent < stops)):
            left = end - sent[rows]
            if strategy.stop is None:
                wave = left
            elif strategy.wave is not None:
                wave = np.minimum(left, strategy.wave)
            else:
                needed = np.maximum(least(rows, sent[rows]), wave_growth(strategy.stop) * size[rows])
                wave = np.minimum(left, np.maximum(needed, 1))
            size[rows], rounds[rows] = wave, rounds[rows] + 1
            sent[rows] += wave
            requests[rows] += 1 if self._batch is None else -(-wave // self._batch)
        every = np.arange(len(at))
        tokens = self._upto[every, sent] - self._upto[:, start] + requests * self._prompts
        return Paid(tokens, (sent - start).astype(float), rounds.astype(float))
