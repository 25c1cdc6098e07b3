"""What the users' functions and judging modules say of a prediction, as scores. Pure.

All of them may give a score alone, a pair of score and feedback, or a mapping or `dspy.Prediction` with `score` and
`feedback`. The scores of verifiers are from 0 to 1. DSPy's rewards are any numbers, and are squashed into that range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from tts_plugins import Score
from tts_plugins.errors import ConfigurationError, InvalidScore


def verdict(value: Any, who: str) -> tuple[Any, str]:
    """Return the score, whatever it is, and the feedback; empty where there is none.

    Raises:
        InvalidScore: a mapping or prediction without a score, or one that is a text and no number.
    """
    if isinstance(value, dspy.Example | Mapping):
        fields = dict(value.items())
        if "score" not in fields:
            raise InvalidScore(
                f"{who} gave {sorted(map(str, fields))} and no `score`; return one beside them (a module: add an "
                "output field `score: float`)"
            )
        return _number(fields["score"], who), str(fields.get("feedback") or fields.get("reasoning") or "")
    if isinstance(value, tuple) and len(value) == 2 and (value[1] is None or isinstance(value[1], str)):
        return value[0], value[1] or ""
    return value, ""


def _number(score: Any, who: str) -> Any:
    """A score that a model wrote as a text, in a field without a type, as a number."""
    if not isinstance(score, str):
        return score
    try:
        return float(score)
    except ValueError:
        raise InvalidScore(f"{who} gave score={score[:80]!r}; declare the field as `score: float`") from None


def read_verdict(value: Any, who: str) -> Any:
    """Return a verifier's verdict in a form that `CallableVerifier` takes.

    Raises:
        InvalidScore: a prediction without a score, or a score that is not a number.
    """
    return verdict(value, who) if isinstance(value, dspy.Example | Mapping) else value


class Reward:
    """A DSPy reward function, of the inputs and the prediction: any number, higher is better.

    Scores here are from 0 to 1, so the reward is squashed, which keeps the order; itself it is in `details["reward"]`.

    Raises:
        ConfigurationError: it cannot be called.
    """

    def __init__(self, function: Callable[[dict[str, Any], Any], Any], owner: str = "BestOfN") -> None:
        if not callable(function) or isinstance(function, type):
            raise ConfigurationError(f"{owner}: reward_fn={function!r} is not a function; pass one of (args, pred)")
        self.function = function
        self.__name__ = str(getattr(function, "__name__", type(function).__name__))

    def __call__(self, args: dict[str, Any], prediction: Any) -> Score:
        """Return the reward as a score."""
        return self.read(self.function(args, prediction))

    def read(self, value: Any) -> Score:
        """Return what the function gave as a score.

        Raises:
            InvalidScore: it is not a number.
        """
        score, feedback = verdict(value, self.__name__)
        try:
            reward = math.nan if isinstance(score, str) else float(score)
        except (TypeError, ValueError, OverflowError):
            reward = math.nan
        if math.isnan(reward):
            raise InvalidScore(
                f"{self.__name__} returned {value!r:.200}; return a number, (number, feedback), or a dict or "
                "dspy.Prediction with score and feedback"
            )
        return Score(value=squash(reward), feedback=feedback, details={"reward": reward})


def squash(reward: float) -> float:
    """Return any number as one from 0 to 1, in order."""
    if math.isinf(reward):
        return float(reward > 0)
    return (1 + reward / (1 + abs(reward))) / 2
