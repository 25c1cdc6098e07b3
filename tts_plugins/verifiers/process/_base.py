"""What process reward models share, wherever they run: the text that they read, and the scores of its steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.prompts import problem_text
from tts_plugins.selection import Aggregate, aggregate, check_aggregate
from tts_plugins.steps import By, steps_of
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._model_calls import worst_text
from tts_plugins.verifiers.process._reward_families import FAMILIES, RewardFamily


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A candidate as a process reward model reads it; `ends` are the places in the text where its steps end."""

    text: str
    ends: tuple[int, ...]


class ProcessReward:
    """Base of verifiers over a process reward model.

    Args:
        family: the name of a `RewardFamily`, or one of your own.
        aggregate: how step scores become one.
        by: how a text without steps is cut into them.

    Raises:
        ConfigurationError: a field is not known.
    """

    def __init__(self, name: str, family: str | RewardFamily, aggregate: Aggregate, by: By | re.Pattern[str]) -> None:
        chosen = FAMILIES.get(family) if isinstance(family, str) else family
        if not isinstance(chosen, RewardFamily):
            known = ", ".join(map(repr, FAMILIES))
            raise ConfigurationError(f"{name}: family={family!r} is not known; use {known}, or a RewardFamily")
        check_aggregate(name, aggregate)
        self.name, self.family, self.aggregate, self.by = name, chosen, aggregate, by

    def _worst(self, problem: Problem, tokens: int | None) -> str:
        """Return a text as long as one with a candidate of so many tokens can be."""
        return self.family.render(problem_text(problem), [worst_text(tokens)] + [""] * 40)

    def _shown(self, candidate: Candidate) -> Shown:
        steps = [step.text for step in steps_of(candidate, self.by)]
        if not steps:
            raise VerifierError(f"{self.name}: candidate {candidate.id} has no text to cut into steps")
        problem = problem_text(candidate.problem)
        ends = tuple(len(self.family.render(problem, steps, upto=i)) for i in range(1, len(steps) + 1))
        return Shown(text=self.family.render(problem, steps), ends=ends)

    def _score(
        self,
        shown: Shown,
        rows: Sequence[Any],
        places: Sequence[int] | None = None,
        *,
        family: RewardFamily | None = None,
    ) -> Score:
        """Return the scores in the rows, and their aggregate; `family` says so if they are read in another way.

        Raises:
            InvalidScore: they are not scores of its steps.
        """
        scores = (family or self.family).scores(rows, len(shown.ends), places, self.name)
        return Score(value=aggregate(scores, self.aggregate), steps=scores, details={"aggregate": self.aggregate})
