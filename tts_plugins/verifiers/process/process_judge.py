"""A language model that scores each step: for users without a process reward model, such as those of llama.cpp."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tts_plugins._internal.config import check_count
from tts_plugins.answers import without_thoughts
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.prompts import LIMIT, Messages, make_key, problem_text, step_messages, steps_messages, steps_schema
from tts_plugins.protocols import Model, Run
from tts_plugins.selection import Aggregate, aggregate, check_aggregate
from tts_plugins.steps import By, steps_of
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._judge_replies import (
    Unreadable,
    in_range,
    p_yes,
    read_verdict,
    text_of,
    top_logprobs,
    unit,
    word_at,
)
from tts_plugins.verifiers._memo import Memory, prefix_keys
from tts_plugins.verifiers._model_calls import Asker, total, worst_text, worst_trouble

_TOKENS_A_STEP = 8  # the steps of a candidate are reserved for by this; a text of shorter ones draws on what is left
_REPAIRS = 2  # that are reserved for in "yes_no"


class ProcessJudge:
    """Scores the steps of a candidate with a language model.

    Args:
        model: who judges.
        mode: "batch" asks for all new steps in one request, as a structured verdict; "yes_no" asks about each new
            step "is it right?" and takes P(yes) from the alternatives of the first token, or Yes and No as 1 and 0.
        aggregate: how step scores become one.
        by: how a text without steps is cut into them, see `tts_plugins.steps.split`.
        scale: of "batch": the lowest and the highest number.
        max_steps: steps of a candidate at most; more are an error of that candidate. "yes_no" reserves a call for each.
        limit: bytes of a candidate that the judge sees.
        remember: prefixes kept. A step that was scored after the same steps of the same problem is not asked about
            again, as the steps that beams share.
        name: as it appears in traces.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        mode: Literal["batch", "yes_no"] = "batch",
        aggregate: Aggregate = "min",
        by: By | re.Pattern[str] = "paragraph",
        scale: tuple[int, int] = (1, 5),
        max_steps: int = 40,
        limit: int = LIMIT,
        remember: int = 4096,
        name: str = "ProcessJudge",
    ) -> None:
        if mode not in ("batch", "yes_no"):
            raise ConfigurationError(f"{name}: mode={mode!r} is not known; use 'batch' or 'yes_no'")
        if len(scale) != 2 or not 0 <= scale[0] < scale[1]:
            raise ConfigurationError(f"{name}: scale={scale!r} must be two whole numbers, the lower one first")
        check_aggregate(name, aggregate)
        for field, value, least in (("max_steps", max_steps, 1), ("limit", limit, 200), ("remember", remember, 0)):
            check_count(name, field, value, least=least)
        self.name, self.mode, self.aggregate, self.by, self.scale = name, mode, aggregate, by, scale
        self.max_steps, self.limit = max_steps, limit
        schema = steps_schema(1, scale) if mode == "batch" else None
        self._asker = Asker(model, name, schema=schema, logprobs=mode == "yes_no")
        self._known = Memory[float](remember)

    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name}, {self.mode})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of a request and its repair ("batch"), or of one for each step and repairs ("yes_no")."""
        text, about = worst_text(tokens, self.limit), problem_text(problem)
        if self.mode == "yes_no":
            steps = min(self.max_steps, self.max_steps if tokens is None else tokens // _TOKENS_A_STEP + 1)
            # No beginning in a quarter of the steps is longer than that quarter's end.
            ends = [text[: len(text) * quarter // 4] for quarter in (1, 2, 3, 4)]
            whole, bounds = worst_trouble(), list[Bound]()
            for end in ends:
                messages = [step_messages(about, [end], key="x" * 8, limit=self.limit, trouble=whole)]
                bounds.append(await self._asker.bound(messages))
            return total([b for b in bounds for _ in range(-(-steps // 4))] + [bounds[-1]] * _REPAIRS)
        return await self._asker.bound(
            [self._batch(about, [text], 1, "x" * 8, trouble) for trouble in ("", worst_trouble())]
        )

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return a score for each step, their aggregate, and the first mistake as feedback.

        Raises:
            VerifierError: there are no steps or too many, or the verdict could not be read.
        """
        steps = [step.text for step in steps_of(candidate, self.by)]
        if not 0 < len(steps) <= self.max_steps:
            raise VerifierError(
                f"{self.name}: candidate {candidate.id} has {len(steps)} steps; from 1 to "
                f"max_steps={self.max_steps} can be scored"
            )
        problem = problem_text(candidate.problem)
        keys = prefix_keys(problem, steps)
        known = self._known.prefix(keys)
        critique = ""
        if self.mode == "yes_no":
            for i in range(len(known), len(steps)):
                known.append(await self._ask_one(run, problem, steps[: i + 1]))
                self._known.put(keys[i], known[i])
        elif len(known) < len(steps):
            fresh, critique = await self._ask_all(run, problem, steps, len(known) + 1)
            for key, value in zip(keys[len(known) :], fresh, strict=True):
                self._known.put(key, value)
            known = [*known, *fresh]
        scores = tuple(known)
        return Score(
            value=aggregate(scores, self.aggregate), steps=scores, feedback=critique,
            details={"aggregate": self.aggregate},
        )  # fmt: skip

    async def _ask_one(self, run: Run, problem: str, steps: Sequence[str]) -> float:
        key = make_key(run.seed, self.name, problem, *steps)
        values, _ = await self._asker.ask_and_read(
            run,
            lambda trouble: step_messages(problem, steps, key=key, limit=self.limit, trouble=trouble),
            _yes_or_no,
        )
        return values[0]

    async def _ask_all(self, run: Run, problem: str, steps: Sequence[str], first: int) -> tuple[list[float], str]:
        key, count = make_key(run.seed, self.name, problem, *steps), len(steps) - first + 1
        verdicts, _ = await self._asker.ask_and_read(
            run,
            lambda trouble: self._batch(problem, steps, first, key, trouble),
            lambda generation: self._read(generation, key, count),
            1,
            steps_schema(count, self.scale),
        )
        return verdicts[0]

    def _batch(self, problem: str, steps: Sequence[str], first: int, key: str, trouble: str) -> Messages:
        return steps_messages(
            problem, steps, first=first, scale=self.scale, key=key, limit=self.limit, trouble=trouble
        )  # fmt: skip

    def _read(self, generation: Generation, key: str, count: int) -> tuple[list[float], str]:
        verdict = read_verdict(generation.text, key)
        given = verdict.get("scores")
        if not isinstance(given, list) or len(given) != count:
            raise Unreadable(f"scores is not a list of {count} numbers", given)
        scores = [unit(in_range(v, f"score {i}", self.scale), self.scale) for i, v in enumerate(given, 1)]
        return scores, text_of(verdict, "critique")


def _yes_or_no(generation: Generation) -> float:
    # "No, since …" is accepted; "Yes and no" is not. Qwen3 writes empty thinking tags before it answers.
    rest = without_thoughts(generation.text)
    said = re.findall(r"\b(?:yes|no)\b", rest.lower())
    first = re.match(r"[\s*\"'.]*(yes|no)\b", rest, re.IGNORECASE)
    if first is None or len(set(said)) != 1:
        raise Unreadable("the reply does not begin with Yes or No, or has both", generation.text)
    word = first[1].lower()
    alternatives = top_logprobs(generation)
    expected = None
    if alternatives is not None:
        text = "".join(token[0][0] for token in alternatives)
        place = text.find(rest) + first.start(1) if rest in text else -1
        token = word_at(alternatives, place) if place >= 0 else None
        expected = None if token is None else p_yes(token)
    return expected if expected is not None else float(word == "yes")
