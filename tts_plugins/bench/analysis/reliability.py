"""The reliability diagram of predicted probabilities, as text and as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDE, _PAD = 320, 40  # sizes in the SVG: the diagram's square, and its margin


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The predictions between `low` and `high`: their mean, the mean outcome, and their number."""

    low: float
    high: float
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        bins: those that hold predictions, from low to high.
        error: the expected calibration error, the mean distance of a bin's two means, weighted by its count.
        brier: the mean squared distance of prediction and outcome.
        base_brier: the same for a constant prediction of the mean outcome.
    """

    bins: tuple[Bin, ...]
    error: float
    brier: float
    base_brier: float

    @classmethod
    def of(cls, predicted: Sequence[float], observed: Sequence[float], *, bins: int = 10) -> Reliability:
        """Compute the diagram of predictions in [0, 1] against outcomes, which may be shares.

        Raises:
            ValueError: there are none, they are not pairs, or `bins` is below 1.
        """
        if not predicted or len(predicted) != len(observed) or bins < 1:
            raise ValueError(f"reliability: {len(predicted)} predictions, {len(observed)} outcomes, bins={bins}")
        held: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
        for p, o in zip(predicted, observed, strict=True):
            held[min(bins - 1, int(p * bins))].append((p, o))
        made = tuple(_bin(i, bins, pairs) for i, pairs in enumerate(held) if pairs)
        n, mean = len(predicted), math.fsum(observed) / len(observed)
        return cls(
            bins=made,
            error=math.fsum(b.count * abs(b.predicted - b.observed) for b in made) / n,
            brier=math.fsum((p - o) ** 2 for p, o in zip(predicted, observed, strict=True)) / n,
            base_brier=math.fsum((o - mean) ** 2 for o in observed) / n,
        )

    def text(self, width: int = 40) -> str:
        """Draw for a terminal: for each bin a bar for the mean outcome, and a mark at the mean prediction."""
        lines = [f"{'predicted':>10} {'came':>6} {'steps':>6}"]
        for b in self.bins:
            bar = list("█" * round(b.observed * width) + "·" * (width - round(b.observed * width)))
            bar[min(width - 1, round(b.predicted * width))] = "│"
            lines.append(f"{b.predicted:>10.2f} {b.observed:>6.2f} {b.count:>6}  {''.join(bar)}")
        return "\n".join(lines)

    def svg(self) -> str:
        """Draw one `<svg>` element: the diagonal, and a dot for each bin with an area by its count."""

        def at(x: float, y: float) -> tuple[float, float]:
            return _PAD + x * _WIDE, _PAD + (1 - y) * _WIDE

        size, most = _WIDE + 2 * _PAD, max(b.count for b in self.bins)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect x="{_PAD}" y="{_PAD}" width="{_WIDE}" height="{_WIDE}" fill="none" stroke="#888"/>',
            f'<path d="M{_PAD} {_PAD + _WIDE}L{_PAD + _WIDE} {_PAD}" stroke="#888" stroke-dasharray="4 4"/>',
        ]
        points = [at(b.predicted, b.observed) for b in self.bins]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>')
        for b, (x, y) in zip(self.bins, points, strict=True):
            said = f"{b.count} steps: predicted {b.predicted:.2f}, came {b.observed:.2f}"
            radius = 3 + 7 * math.sqrt(b.count / most)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#2563eb" fill-opacity=".6">'
                f"<title>{said}</title></circle>"
            )
        for tick in (0.0, 0.5, 1.0):
            (x, below), (left, y) = at(tick, 0), at(0, tick)
            parts.append(f'<text x="{x:.0f}" y="{below + 16:.0f}" text-anchor="middle">{tick:g}</text>')
            parts.append(f'<text x="{left - 8:.0f}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{size / 2:.0f}" y="{size - 6}" text-anchor="middle">predicted</text>')
        parts.append(
            f'<text x="12" y="{size / 2:.0f}" transform="rotate(-90 12 {size / 2:.0f})" text-anchor="middle">'
            "came</text>"
        )
        return "\n".join([*parts, "</svg>"])


def _bin(place: int, bins: int, pairs: Sequence[tuple[float, float]]) -> Bin:
    return Bin(
        low=place / bins,
        high=(place + 1) / bins,
        predicted=math.fsum(p for p, _ in pairs) / len(pairs),
        observed=math.fsum(o for _, o in pairs) / len(pairs),
        count=len(pairs),
    )
