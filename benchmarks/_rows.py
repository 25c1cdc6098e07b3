"""Rows of the table, and the statistics in them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: what was measured, what it must be, what it is. `met` is None where nothing is asked."""

    number: int
    what: str
    ours: str
    must: str = ""
    met: bool | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Sizes:
    """How much of everything: `FULL` is what is asked, `SHORT` only shows that it runs."""

    pairs: int
    slow_pairs: int
    slow: float
    cpu_pairs: int
    cpu_solves: int
    votes: int
    crowd: int
    cancelled: int
    local: int
    imports: int


FULL = Sizes(pairs=15, slow_pairs=5, slow=0.5, cpu_pairs=21, cpu_solves=16, votes=9, crowd=512, cancelled=200,
             local=300, imports=7)  # fmt: skip
SHORT = Sizes(pairs=2, slow_pairs=1, slow=0.05, cpu_pairs=1, cpu_solves=2, votes=1, crowd=12, cancelled=20,
              local=10, imports=1)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The rows, one a line, in columns as wide as they need."""
    head = ("", "measured", "must", "ours", "met")
    lines = [head] + [
        (str(r.number), r.what, r.must, r.ours, "" if r.met is None else "yes" if r.met else "NO") for r in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    printed = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in [printed[0], "-" * len(printed[0]), *printed[1:]])
