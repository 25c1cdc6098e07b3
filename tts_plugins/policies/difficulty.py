"""How hard a problem is, from its grades or from a few probe samples (Snell et al. 2024, 2408.03314, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from tts_plugins._internal.config import check_count
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies._base import Part
from tts_plugins.selection import semantic_entropy, tally
from tts_plugins.types import Scored

if TYPE_CHECKING:
    from tts_plugins.pools import PoolProblem

Signal = Literal["score", "best", "agreement", "entropy", "logprob"]
SIGNALS: tuple[Signal, ...] = ("score", "best", "agreement", "entropy", "logprob")

OF_SCORES: tuple[Signal, ...] = ("score", "best")


def oracle(problem: PoolProblem) -> float:
    """Return the share of a problem's recorded samples that are right (pass@1), the paper's oracle; 1 is easy.

    It reads grades, so use it for tables and limits, never for a choice on the problem that is measured.

    Raises:
        DataError: there are no samples, or one was never graded.
    """
    grades = [c.correct for c in problem.candidates]
    if not grades or None in grades:
        raise DataError(f"problem {problem.id!r}, correct: is null, or there is no candidate; pass@1 needs grades")
    return sum(map(bool, grades)) / len(grades)


def predicted(seen: Sequence[Scored], signal: Signal) -> float | None:
    """Predict how easy a problem is from a few samples, in [0, 1]; None if they say nothing.

    "score" is the verifier's mean score, "best" its highest, "agreement" the leading answer's share of the samples,
    "entropy" 1 less the semantic entropy of the answers as a share of the most there can be (Farquhar et al. 2024),
    "logprob" the geometric mean probability of a token. Truncated samples are left out: they show that the limit
    is short, not that the problem is hard.

    Raises:
        ConfigurationError: a sample lacks what the signal needs.
    """
    whole = [c for c in seen if not c.truncated]
    if not whole:
        return None
    if signal == "agreement":
        return max(tally(whole).values(), default=0.0) / len(whole)
    if signal == "entropy":
        return min(1.0, max(0.0, 1.0 - semantic_entropy(whole) / math.log(max(2, len(whole)))))
    if signal in OF_SCORES:
        scores = [c.score for c in whole if c.score is not None]
        if len(scores) < len(whole):
            raise ConfigurationError(f"difficulty: signal={signal!r} needs scores; pass verifier=…, or use 'agreement'")
        return max(scores) if signal == "best" else math.fsum(scores) / len(scores)
    means = [math.fsum(c.logprobs) / len(c.logprobs) for c in whole if c.logprobs]
    if len(means) < len(whole):
        raise ConfigurationError("difficulty: signal='logprob' needs log-probabilities; ask the model for logprobs")
    return math.exp(min(0.0, math.fsum(means) / len(means)))


def quantile_edges(eases: Sequence[float], bins: int) -> tuple[float, ...]:
    """Return rising edges that cut eases into `bins` parts of nearly equal size; fewer if many eases are equal.

    Raises:
        ConfigurationError: there are none, or `bins` is below 1.
    """
    check_count("difficulty", "bins", bins)
    if not eases:
        raise ConfigurationError("difficulty: there is nothing to fit edges to; is the fold empty?")
    ordered = sorted(eases)
    cuts = {ordered[len(ordered) * i // bins] for i in range(1, bins)}
    return tuple(sorted(cut for cut in cuts if cut > ordered[0]))  # an edge at the minimum would make an empty bin


@dataclass(frozen=True, kw_only=True)
class Difficulty(Part):
    """Predicted difficulty in bins, the easiest first.

    Args:
        signal: what is looked at, see `predicted`.
        edges: rising, in [0, 1]: a problem whose ease is at least the last one falls into bin 0, and below the first
            one into the last bin. Absolute thresholds (Liu et al. 2025, 2502.06703), or from `fit`.

    Raises:
        ConfigurationError: an unknown signal, or edges that do not rise within [0, 1].
    """

    signal: Signal = "agreement"
    edges: tuple[float, ...] = (0.35, 0.7)

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise ConfigurationError(
                f"Difficulty: signal={self.signal!r} is not known; use one of {', '.join(map(repr, SIGNALS))}"
            )
        object.__setattr__(self, "edges", tuple(self.edges))
        numbers = all(is_number(e) and 0 <= e <= 1 for e in self.edges)
        if not numbers or list(self.edges) != sorted(set(self.edges)):
            raise ConfigurationError(f"Difficulty: edges={self.edges!r} must rise within 0 to 1, such as (0.35, 0.7)")

    @classmethod
    def fit(cls, eases: Sequence[float], *, signal: Signal, bins: int = 5) -> Self:
        """Fit edges as quantiles of the eases of the fit's problems; the paper has five bins."""
        return cls(signal=signal, edges=quantile_edges(eases, bins))

    @property
    def bins(self) -> int:
        """The number of bins."""
        return len(self.edges) + 1

    def bin_of(self, ease: float) -> int:
        """Return the bin of an ease, 0 for the easiest."""
        return sum(ease < edge for edge in self.edges)

    def __call__(self, seen: Sequence[Scored]) -> int | None:
        """Return the bin of a problem with these samples; None if all of them were truncated."""
        ease = predicted(seen, self.signal)
        return None if ease is None else self.bin_of(ease)
