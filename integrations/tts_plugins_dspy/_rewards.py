"""DSPy's reward functions, whose numbers have no bounds, as scores, which do. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import dspy

from tts_plugins import Score
from tts_plugins.errors import ConfigurationError, InvalidScore


class Reward:
    """A DSPy reward function, of the inputs and the prediction: any number, higher is better.

    Scores here are from 0 to 1, so the reward is squashed, which keeps the order; itself it is in `details["reward"]`.
    """

    def __init__(self, function: Callable[[dict[str, Any], Any], Any], owner: str = "BestOfN") -> None:
        if not callable(function):
            raise ConfigurationError(
                f"{owner}: reward_fn={function!r} cannot be called; pass a function of (args, pred)"
            )
        self.function = function
        self.__name__ = str(getattr(function, "__name__", type(function).__name__))

    def __call__(self, args: dict[str, Any], prediction: Any) -> Score:
        """The reward as a score."""
        return self.read(self.function(args, prediction))

    def read(self, value: Any) -> Score:
        """The reward as a score.

        Raises:
            InvalidScore: it is no number.
        """
        score = value.score if isinstance(value, dspy.Prediction) else value
        if not hasattr(score, "__float__") or math.isnan(float(score)):
            raise InvalidScore(f"{self.__name__} returned {value!r}; a reward is a number")
        feedback = value.get("feedback", "") if isinstance(value, dspy.Prediction) else ""
        return Score(value=squash(float(score)), feedback=str(feedback or ""), details={"reward": float(score)})


def squash(reward: float) -> float:
    """Any number to [0, 1], in order."""
    if math.isinf(reward):
        return float(reward > 0)
    return (1 + reward / (1 + abs(reward))) / 2
