"""The records of a pool: its header, a problem, a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._internal.config import in_unit
from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.errors import DataError
from tts_plugins.selection import Aggregate, aggregate
from tts_plugins.types import EMPTY, Problem

FORMAT, VERSION = "tts-pool", 1


@dataclass(frozen=True, kw_only=True)
class PoolCandidate:
    """One recorded sample.

    Attributes:
        text: what the model wrote; None where only its answer was kept.
        answer: its answer or the class of equal answers; None where none could be read.
        tokens: completion tokens; None where they were not counted.
        correct: for measuring only; None where it was not graded.
        step_scores, score: a verifier's scores of the steps and of the whole, in [0, 1].
        truncated: whether a length limit cut it.
        extra: what else the line holds.

    Raises:
        DataError: a score is outside of [0, 1], or a field is of another kind.
    """

    text: str | None = None
    answer: str | None = None
    tokens: int | None = None
    correct: bool | None = None
    step_scores: tuple[float, ...] = ()
    score: float | None = None
    truncated: bool = False
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)

    def __post_init__(self) -> None:
        # Bad scores fit a rule as well as good ones do, and nobody would see it.
        if self.score is not None:
            object.__setattr__(self, "score", _share("score", self.score))
        if self.step_scores:
            shares = tuple(_share(f"step_scores[{i}]", s) for i, s in enumerate(self.step_scores))
            object.__setattr__(self, "step_scores", shares)
        if self.tokens is not None:
            object.__setattr__(self, "tokens", _count("tokens", self.tokens))
        for name, kinds, said in (
            ("correct", bool | None, "true, false or null"),
            ("truncated", bool, "true or false"),
        ):
            object.__setattr__(self, name, found := _native(getattr(self, name)))
            if not isinstance(found, kinds):
                raise DataError(f"{name}: {found!r} must be {said}")
        if not isinstance(self.answer, str | None):
            raise DataError(f"answer: {self.answer!r} must be a text or null")

    @property
    def blank(self) -> bool:
        """Whether it says nothing: an empty text and no answer. A text that was not kept is not known to be empty."""
        return self.text is not None and not self.text.strip() and not (self.answer and self.answer.strip())

    @property
    def counted(self) -> int | None:
        """Its tokens; None where nobody counted them: null, or 0 though it says something."""
        return self.tokens if self.tokens or self.blank else None

    def scored(self, how: Aggregate = "last") -> float | None:
        """Return the recorded score: that of the whole, else the combined step scores; None if there is neither."""
        if self.score is not None:
            return self.score
        return aggregate(self.step_scores, how) if self.step_scores else None


def _count(name: str, value: object) -> int | None:
    """Return a count of tokens, or None.

    Raises:
        DataError: it is something else.
    """
    found = _native(value)
    if found is None or (is_whole(found, 0) and found <= _MOST):
        return found
    most = f" and at most {_MOST}" if is_whole(found, 0) else ""
    raise DataError(f"{name}: {found!r:.60} must be a whole number of at least 0{most}, or null")


_MOST = 2**53  # what a float holds exactly


def _share(name: str, value: object) -> float:
    found = _native(value)
    if not is_number(found) and not isinstance(found, float):
        raise DataError(f"{name}: {found!r:.60} must be a number from 0 to 1")
    if not is_number(found) or (share := in_unit(found)) is None:
        raise DataError(
            f"{name}: {found!r:.60} is outside of 0 to 1; for raw rewards fit a verifiers.Calibration and record "
            "with verifiers.Calibrated, or read the pool with squash='sigmoid' (logits) or 'rank' (--squash)"
        )
    return share


def _native(value: Any) -> Any:
    """Return Python's own number for one of numpy's."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value


@dataclass(frozen=True, kw_only=True)
class PoolProblem:
    """A problem with its recorded samples.

    Attributes:
        id: unique in the pool.
        prompt: as it was asked; None where it was not kept.
        answer: the gold answer.
        level: difficulty as the dataset gives it.
        candidates: in the order of recording.
        prompt_tokens: of one request; None if they were not counted.

    Raises:
        DataError: the count of tokens is something else.
    """

    id: str
    prompt: str | None = None
    answer: str | None = None
    level: int | str | None = None
    candidates: tuple[PoolCandidate, ...] = ()
    prompt_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)

    def __post_init__(self) -> None:
        if self.prompt_tokens is not None:
            object.__setattr__(self, "prompt_tokens", _count("prompt_tokens", self.prompt_tokens))

    def problem(self) -> Problem:
        """Return a new `Problem` for `solve`; a `ReplayModel` starts over for each one."""
        content = self.prompt if self.prompt and self.prompt.strip() else f"problem {self.id}"
        return Problem(content, id=self.id, metadata={"answer": self.answer, "level": self.level, **self.extra})


@dataclass(frozen=True, kw_only=True)
class PoolHeader:
    """The first line: the model, the data set, the licence. `tokens` says how tokens were counted."""

    model: str
    dataset: str
    source: str | None = None
    licence: str | None = None
    verifier: str | None = None
    tokens: str | None = None
    note: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: EMPTY, repr=False)
