"""The cost of samples: each has its own tokens, and each request its prompt. Samples sent together share a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tts_plugins.policies._stopping.walks import Floats, Ints
from tts_plugins.pools import PoolProblem
from tts_plugins.protocols import StopRule
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.types import Scored

Waves = tuple[Ints, Ints]  # for each walk: how many samples it has paid for, and how many requests it made


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

    def paid(
        self, strategy: BestOfN | SelfConsistency, at: Ints, start: int, until: int,
        seen: Callable[[int, int], Sequence[Scored]],
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """Return tokens and samples of a strategy that has `start` samples and goes on to its stop `at`, or to `until`.

        A wave is paid for as a whole, including samples after the stop.

        Args:
            seen: the first samples of a walk: (walk, how many).
        """
        stops, end = np.minimum(at, until), min(until, strategy.n)
        ends, requests = self._waves(strategy, stops, start, end, seen)
        rows = np.arange(len(at))
        tokens = self._upto[rows, ends] - self._upto[:, start] + requests * self._prompts
        return tokens, (ends - start).astype(float)

    def _waves(
        self, strategy: BestOfN | SelfConsistency, stops: Ints, start: int, end: int,
        seen: Callable[[int, int], Sequence[Scored]],
    ) -> Waves:  # fmt: skip
        open_ = np.maximum(stops - start, 0)  # the fewest further samples
        if strategy.stop is not None and strategy.wave is None:
            walks = [self._doubling(strategy.stop, strategy.n, int(stop), start, end, partial(seen, row))
                     for row, stop in enumerate(stops)]  # fmt: skip
            return np.array([w[0] for w in walks]), np.array([w[1] for w in walks])
        size = max(end - start, 1) if strategy.stop is None else int(strategy.wave or 1)
        waves = -(-open_ // size)
        ends = np.minimum(start + waves * size, max(end, start))
        last = np.where(waves > 0, ends - start - (waves - 1) * size, 0)
        return ends, np.maximum(waves - 1, 0) * self._requests(size) + np.vectorize(self._requests, otypes=[int])(last)

    def _doubling(
        self, rule: StopRule, n: int, stop: int, start: int, end: int, seen: Callable[[int], Sequence[Scored]]
    ) -> tuple[int, int]:
        """Follow the engine's waves: the first has the size that the rule needs at least, and sizes double."""
        sent, size, requests = start, 0, 0
        while sent < stop:
            size = min(end - sent, max(rule.least(seen(sent), n - sent), 2 * size, 1))
            sent += size
            requests += self._requests(size)
        return sent, requests

    def _requests(self, size: int) -> int:
        return min(size, 1) if self._batch is None else -(-size // self._batch)
