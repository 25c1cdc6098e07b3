"""What a learned verifier learned, and its file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tts_plugins._internal.files import replacing
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.selection import Aggregate, check_aggregate
from tts_plugins.types import EMPTY

if TYPE_CHECKING:
    from tts_plugins.verifiers.learned._features import Table

FORMAT, VERSION = "tts-learned-verifier", 1


@dataclass(frozen=True, kw_only=True)
class LearnedHead:
    """What a training found: a logistic regression on features of a solution's beginning.

    Attributes:
        weights: of the features: log of steps, log of characters, mean and least log-probability if there are
            any, then the vector of the embedding model.
        bias: the intercept.
        embedding: the name of the model whose vectors it was fitted to; vectors of other models mean nothing to it.
        logprobs: whether candidates must have log-probabilities.
        aggregate: how step scores become one.
        features: the version of the features.
        about: what it was trained on, and how: names and figures.
    """

    weights: tuple[float, ...]
    bias: float
    embedding: str
    logprobs: bool
    aggregate: Aggregate = "last"
    features: int = 1
    about: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        from tts_plugins.verifiers.learned._features import LENGTHS, SPEC, SURE

        check_aggregate("LearnedHead", self.aggregate)
        if not isinstance(self.bias, float) or not math.isfinite(self.bias) or not isinstance(self.logprobs, bool):
            raise ConfigurationError(
                f"LearnedHead: bias={self.bias!r} must be a finite number and logprobs={self.logprobs!r} true or false"
            )
        if not isinstance(self.embedding, str) or not self.embedding:
            raise ConfigurationError(f"LearnedHead: embedding={self.embedding!r} must name the model of the vectors")
        if self.features != SPEC:
            raise ConfigurationError(
                f"LearnedHead: features={self.features!r} is not {SPEC}, which this release computes; train it again"
            )
        if self.size < 1:
            need = 1 + LENGTHS + (SURE if self.logprobs else 0)
            raise ConfigurationError(f"LearnedHead: {len(self.weights)} weights; it has to have at least {need}")

    @property
    def size(self) -> int:
        """The length of the vectors that it takes."""
        from tts_plugins.verifiers.learned._features import LENGTHS, SURE

        return len(self.weights) - LENGTHS - (SURE if self.logprobs else 0)

    @classmethod
    def of(
        cls, table: Table, *, embedding: str, aggregate: Aggregate = "last", validation: float = 0.2, seed: int = 0,
        about: Mapping[str, Any] = EMPTY,
    ) -> Self:  # fmt: skip
        """Return the head that fits these rows, see `LearnedVerifier.fit`."""
        from tts_plugins.verifiers.learned._logistic import fit_head

        fitted = fit_head(table, validation=validation, seed=seed)
        figures = {
            "penalty": fitted.penalty,
            "rounds": fitted.rounds,
            "loss": fitted.loss,
            "base_loss": fitted.base_loss,
        }
        return cls(
            weights=tuple(map(float, fitted.weights)), bias=fitted.bias, embedding=embedding, logprobs=table.logprobs,
            aggregate=aggregate, about={**about, **figures, "validation": validation, "seed": seed},
        )  # fmt: skip

    def __call__(self, x: Any) -> tuple[float, ...]:
        """Return the probability of each row, (rows, features)."""
        import numpy as np

        raw = np.clip(np.asarray(x) @ np.asarray(self.weights) + self.bias, -500, 500)
        return tuple(map(float, 1 / (1 + np.exp(-raw))))

    def predicted(self, table: Table, problem: int) -> list[tuple[float, ...]]:
        """Return the step scores of each solution of one problem of a table, in order."""
        part = table.of([problem])
        return [self(part.x[part.solution == place]) for place in sorted(set(map(int, part.solution)))]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as `.npz`, without pickles; the file appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        import numpy as np

        said = {
            "format": FORMAT, "version": VERSION, "bias": self.bias, "embedding": self.embedding,
            "logprobs": self.logprobs, "aggregate": self.aggregate, "features": self.features,
            "about": dict(self.about),
        }  # fmt: skip
        with replacing(path) as made, made.open("wb") as file:
            np.savez(file, weights=np.asarray(self.weights), settings=np.array(json.dumps(said)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; never a pickle.

        Raises:
            DataError: the file is not a learned verifier, or of another version.
        """
        import zipfile

        import numpy as np

        try:
            # Opened here: numpy leaves a file open that it refuses.
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                said, weights = json.loads(str(file["settings"])), file["weights"]
            if said["format"] != FORMAT or said["version"] != VERSION:
                raise DataError(
                    f"{path}: {said['format']!r}, version {said['version']!r}; this release reads {FORMAT!r}, version "
                    f"{VERSION}: train it again"
                )
            if weights.ndim != 1 or not np.isfinite(weights).all():
                raise DataError(f"{path}, weights: they must be a row of finite numbers")
            fields = {k: said[k] for k in ("bias", "embedding", "logprobs", "aggregate", "features", "about")}
            return cls(weights=tuple(map(float, weights)), **fields)
        except ConfigurationError as error:
            raise DataError(f"{path}: {error}") from error
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
            why = type(error).__name__ if "allow_pickle" in str(error) else f"{type(error).__name__}: {error}"
            raise DataError(f"{path}: no learned verifier ({why}); give what `train-verifier` wrote") from error
