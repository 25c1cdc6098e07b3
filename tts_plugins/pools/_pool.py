"""`Pool`: recorded samples of one model on one dataset."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

from tts_plugins._internal.files import expanded
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.pools._reading import SQUASHES, read_file
from tts_plugins.pools._records import PoolHeader, PoolProblem
from tts_plugins.pools._writing import PoolWriter


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Recorded samples of one model on one dataset. Compared by value."""

    header: PoolHeader
    problems: tuple[PoolProblem, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for p in self.problems:
            if p.id in seen:
                raise DataError(f"pool: the problem id {p.id!r} stands twice; give each problem its own")
            seen.add(p.id)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, squash: str | None = None) -> Pool:
        """Read the pool in a file, gzipped or plain.

        Args:
            path: of the file.
            squash: how raw reward scores come into [0, 1]: "sigmoid", 1 / (1 + exp(-score)), for logits; or "rank", the
                share of the pool's scores that are no higher, for any other scale. None where they are in it.

        Raises:
            DataError: the file cannot be read, is not a pool, is of a newer version, or has a malformed line; names
                file, line and field.
        """
        if squash not in (None, *SQUASHES):
            raise ConfigurationError(f"Pool.read: squash={squash!r} is not known; use {' or '.join(SQUASHES)}")
        header, problems = read_file(expanded(path), squash)
        return cls(header=header, problems=problems)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it; the file appears whole or not at all."""
        with PoolWriter(path, self.header) as writer:
            for p in self.problems:
                writer.add(p)

    def split(self, parts: int = 2, *, seed: int = 0) -> tuple[Pool, ...]:
        """Split into parts of nearly equal size with the problems shuffled, for folds.

        Raises:
            ConfigurationError: fewer problems than parts.
        """
        if parts < 1 or parts > len(self.problems):
            raise ConfigurationError(f"split: parts={parts} must be 1 to {len(self.problems)}; no part may be empty")
        order = list(self.problems)
        random.Random(seed).shuffle(order)
        return tuple(replace(self, problems=tuple(order[i::parts])) for i in range(parts))

    @property
    def fewest(self) -> int:
        """The fewest candidates of any problem, which is the largest `n` that all problems can serve."""
        return min((len(p.candidates) for p in self.problems), default=0)

    @property
    def exact_tokens(self) -> bool:
        """Whether tokens were counted, and not estimated, according to the header."""
        return not (self.header.tokens or "").startswith("estimated")
