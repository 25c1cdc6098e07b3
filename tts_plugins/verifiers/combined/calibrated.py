"""Scores that mean what they say: of candidates that score 0.8, eight in ten are right."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tts_plugins._internal.files import json_objects, replacing
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.protocols import Run, Verifier
from tts_plugins.selection import Aggregate, aggregate
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers.combined.cascade import check_verifier

Method = Literal["isotonic", "platt"]
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A rising map from raw scores to shares of right candidates.

    Attributes:
        method: "isotonic" (pool adjacent violators; steps, for 100 pairs or more) or "platt" (a logistic curve, for
            fewer).
        x, y: of "isotonic", the scores and shares between which it is linear; of "platt", x is empty and y the
            slope and the intercept.
        pairs: how many it was fitted on.
    """

    method: Method
    x: tuple[float, ...]
    y: tuple[float, ...]
    pairs: int

    @classmethod
    def fit(cls, scores: Sequence[float], right: Sequence[bool], *, method: Method = "isotonic") -> Calibration:
        """The map that fits these pairs.

        Raises:
            ConfigurationError: no pairs, lengths that differ, all of one outcome, or a score that is not finite.
        """
        if len(scores) != len(right) or len(scores) < 2:
            raise ConfigurationError(
                f"Calibration: {len(scores)} scores and {len(right)} outcomes; give two or more pairs"
            )
        if not all(math.isfinite(s) for s in scores):
            raise ConfigurationError("Calibration: a score is not finite; leave out what was not scored")
        if len(set(map(bool, right))) < 2:
            raise ConfigurationError("Calibration: all outcomes are alike; give right and wrong candidates")
        if method not in ("isotonic", "platt"):
            raise ConfigurationError(f"Calibration: method={method!r} is not known; use 'isotonic' or 'platt'")
        x, y = (_isotonic if method == "isotonic" else _platt)(scores, right)
        return cls(method=method, x=x, y=y, pairs=len(scores))

    @classmethod
    def from_pool(
        cls, path: str | os.PathLike[str], *, aggregate: Aggregate = "last", method: Method = "isotonic"
    ) -> Calibration:
        """The map that fits a recorded pool: its candidates' `score`, or their `step_scores` by `aggregate`.

        Raises:
            DataError: a line is not a record of the pool format; the file and the line are named.
        """
        scores, right = read_pool(path, aggregate)
        return cls.fit(scores, right, method=method)

    def __call__(self, score: float) -> float:
        """The share of right candidates among those of this raw score."""
        if self.method == "platt":
            z = self.y[0] * score + self.y[1]
            return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, z))))
        import numpy as np

        return float(np.interp(score, self.x, self.y))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as .npz, without pickles; the file appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        import numpy as np

        with replacing(path) as made, made.open("wb") as file:
            np.savez(
                file, version=np.array(_VERSION), method=np.array(self.method), x=np.array(self.x, dtype=float),
                y=np.array(self.y, dtype=float), pairs=np.array(self.pairs),
            )  # fmt: skip

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `save` wrote; never a pickle.

        Raises:
            DataError: the file is not a calibration, or of a newer version.
        """
        import zipfile

        import numpy as np

        try:
            with np.load(path, allow_pickle=False) as file:
                version, method = int(file["version"]), str(file["method"])
                x, y, pairs = file["x"].tolist(), file["y"].tolist(), int(file["pairs"])
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            raise DataError(f"{path}: no calibration ({type(error).__name__}: {error})") from error
        sized = len(y) == 2 if method == "platt" else len(x) == len(y) > 0
        if version > _VERSION or method not in ("isotonic", "platt") or not sized:
            raise DataError(
                f"{path}: version {version}, method {method!r}; this release reads up to version {_VERSION}"
            )
        return cls(method=method, x=tuple(x), y=tuple(y), pairs=pairs)  # type: ignore[arg-type]


class Calibrated:
    """A verifier whose score goes through a `Calibration`.

    Args:
        verifier: scores single candidates.
        calibration: fitted on this verifier's scores over problems whose answers are known.
        name: as it appears in traces.

    `details["raw"]` keeps the score as it was. Step scores stay raw.
    """

    def __init__(self, verifier: Verifier, calibration: Calibration, *, name: str = "Calibrated") -> None:
        check_verifier(name, "verifier", verifier)
        if not isinstance(calibration, Calibration):
            raise ConfigurationError(
                f"{name}: calibration={calibration!r} must be a Calibration; use Calibration.fit(scores, right)"
            )
        self.name, self.verifier, self.calibration = name, verifier, calibration

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self.verifier!r})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """The verifier's own."""
        return await self.verifier.bound(problem, tokens)

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The calibrated score.

        Raises:
            VerifierError: the verifier failed.
        """
        raw = await self.verifier.score(run, candidate)
        value = min(1.0, max(0.0, self.calibration(raw.value)))
        return Score(value=value, steps=raw.steps, feedback=raw.feedback, details={**raw.details, "raw": raw.value})


def read_pool(path: str | os.PathLike[str], how: Aggregate) -> tuple[list[float], list[bool]]:
    """The scores and outcomes of a recorded pool's scored candidates.

    Raises:
        DataError: a line is not a record, named with its file.
    """
    scores, right = list[float](), list[bool]()
    for number, record in json_objects(Path(path)):
        try:
            for candidate in record.get("candidates", ()):
                given = candidate.get("step_scores")
                score = candidate.get("score") if not given else aggregate(given, how)
                if score is not None:
                    scores.append(float(score))
                    right.append(bool(candidate["correct"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: {type(error).__name__}: {error}") from error
    return scores, right


def _isotonic(scores: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Pool adjacent violators: the least-squares rising step function (Ayer et al. 1955)."""
    groups: dict[float, list[float]] = {}
    for score, good in zip(scores, right, strict=True):
        group = groups.setdefault(float(score), [0.0, 0.0])
        group[0] += bool(good)
        group[1] += 1
    blocks: list[list[float]] = []  # sum, weight, first score, last score
    for score in sorted(groups):
        blocks.append([*groups[score], score, score])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            total, weight, _, last = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += weight
            blocks[-1][3] = last
    x, y = list[float](), list[float]()
    for total, weight, first, last in blocks:
        # One candidate of each kind more (Laplace) keeps a small block from claiming certainty.
        share = (total + 1) / (weight + 2)
        for score in (first,) if first == last else (first, last):
            x.append(score)
            y.append(max(share, y[-1]) if y else share)
    return tuple(x), tuple(y)


def _platt(scores: Sequence[float], right: Sequence[bool]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A logistic curve by Newton's method, towards targets drawn in from 0 and 1 (Platt 1999; Lin et al. 2007)."""
    import numpy as np

    s, good = np.asarray(scores, dtype=float), np.asarray(right, dtype=bool)
    positives, negatives = int(good.sum()), int((~good).sum())
    target = np.where(good, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    columns = np.stack([s, np.ones_like(s)], axis=1)
    weights = np.array([0.0, math.log((positives + 1) / (negatives + 1))])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(columns @ weights, -500, 500)))
        gradient = columns.T @ (p - target)
        hessian = (columns * (p * (1 - p))[:, None]).T @ columns + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step * min(1.0, 10.0 / (float(np.abs(step).max()) + 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    # A curve that falls would turn the ranking round; it says that the scores tell nothing.
    slope = max(0.0, float(weights[0]))
    intercept = float(weights[1]) if slope else math.log((positives + 1) / (negatives + 1))
    return (), (slope, intercept)
