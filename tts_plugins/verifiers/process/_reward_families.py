"""What process reward models read and what their rows mean. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tts_plugins._internal.config import in_unit
from tts_plugins._internal.untrusted_text import neutralise
from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError, InvalidScore

Squash = Literal["none", "sigmoid", "softmax"]


@dataclass(frozen=True, kw_only=True)
class RewardFamily:
    """A process reward model's form.

    Args:
        template: the whole input, with `{problem}` and `{steps}`.
        step: one step, with `{step}`, `{number}` and `{separator}`.
        separator: what marks a step's end; it is taken out of the steps' own texts.
        rows: whether the server returns a row for each "step" (pooling type STEP) or each "token".
        positive: which column is the probability of "right"; the only one if a row has one.
        squash: "none" if rows are probabilities; "sigmoid" for a raw reward, "softmax" for two logits.
        words: if the model has no head for scores, but answers after the separator: the tokens whose logits are
            the row. `ProcessVerifierTransformers` reads them; a server has them in its own settings.

    Raises:
        ConfigurationError: a field is not known, or a template lacks its places.
    """

    template: str
    step: str
    separator: str
    rows: Literal["step", "token"] = "step"
    positive: int = 0
    squash: Squash = "none"
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, need in (
            ("template", self.template, ("{problem}", "{steps}")),
            ("step", self.step, ("{step}", "{separator}")),
        ):
            if missing := [place for place in need if place not in value]:
                raise ConfigurationError(f"RewardFamily: {name}={value!r} has no {missing[0]}; put it where it belongs")
        if not self.separator:
            raise ConfigurationError("RewardFamily: separator='' marks nothing; use what the model was trained with")
        if self.rows not in ("step", "token") or self.squash not in ("none", "sigmoid", "softmax"):
            raise ConfigurationError(
                f"RewardFamily: rows={self.rows!r}, squash={self.squash!r}; use 'step' or 'token', and 'none', "
                "'sigmoid' or 'softmax'"
            )

    def render(self, problem: str, steps: Sequence[str], upto: int | None = None) -> str:
        """Return the input for these steps, or its beginning up to the end of step number `upto`, counted from 1."""
        parts = [
            _fill(self.step, step=self._clean(text), number=str(i), separator=self.separator)
            for i, text in enumerate(steps, 1)
        ]
        if upto is None:
            return _fill(self.template, problem=neutralise(problem), steps="".join(parts))
        head = self.template[: self.template.index("{steps}")]
        return _fill(head, problem=neutralise(problem), steps="") + "".join(parts[:upto])

    def scores(self, rows: Sequence[Any], count: int, places: Sequence[int] | None, who: str) -> tuple[float, ...]:
        """Return a score for each of `count` steps.

        Args:
            rows: as the server returned them.
            count: of the steps.
            places: the row of each step's end, if there is a row for each token.
            who: the verifier, for errors.

        Raises:
            InvalidScore: too few or too many rows, or something that is not a probability.
        """
        if places is None:
            if len(rows) != count:
                raise InvalidScore(
                    f"{who}: {len(rows)} rows for {count} steps; the server must return one row for each "
                    f"{self.separator.strip() or 'separator'!r} (vLLM: --pooler-config with pooling_type STEP and its "
                    "step_tag_id), or use a family with rows='token'"
                )
            places = range(count)
        return tuple(self._probability(rows[place], i, who) for i, place in enumerate(places, 1))

    def _probability(self, row: Any, number: int, who: str) -> float:
        values = row if isinstance(row, Sequence) and not isinstance(row, str) else [row]
        finite = all(map(is_number, values))
        if not values or not finite or (len(values) > 1 and self.positive >= len(values)):
            raise InvalidScore(f"{who}: the row of step {number} is {str(row)[:60]}, no numbers to choose from")
        value = float(values[self.positive] if len(values) > 1 else values[0])
        if self.squash == "sigmoid":
            return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, value))))
        if self.squash == "softmax":
            top = max(values)
            return math.exp(value - top) / math.fsum(math.exp(v - top) for v in values)
        if (probability := in_unit(value)) is None:
            raise InvalidScore(
                f"{who}: step {number} has {value!r}, not a probability; use squash='sigmoid' for raw rewards, "
                "squash='softmax' for logits"
            )
        return probability

    def _clean(self, step: str) -> str:
        mark = self.separator.strip()
        text = neutralise(step).replace(mark, " ") if mark else neutralise(step)
        return text.replace(self.separator, " ").strip()


def _fill(template: str, **values: str) -> str:
    # In one pass: what a candidate wrote may contain "{problem}" too.
    return re.sub(r"\{(problem|steps|step|number|separator)\}", lambda m: values.get(m[1], m[0]), template)


_CHATML = (
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
    "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n{steps}<|im_end|><|endoftext|>"
)

FAMILIES: Mapping[str, RewardFamily] = {
    # Qwen2.5-Math-PRM: its model card joins steps with <extra_0>, one after the last too; rows are (wrong, right).
    "qwen": RewardFamily(template=_CHATML, step="{step}{separator}", separator="<extra_0>", positive=1),
    # Math-Shepherd: "Step i: … ки", served with step_tag_id 12902 and returned_token_ids [648, 387], "+" and "-".
    "math-shepherd": RewardFamily(
        template="{problem} {steps}",
        step="Step {number}: {step}{separator}",
        separator=" ки\n",
        positive=0,
        words=("+", "-"),
    ),
    # A reward for each token, read at the end of each line (Skywork-o1-PRM): raw, so squashed.
    "token": RewardFamily(
        template="{problem}\n{steps}", step="{step}{separator}", separator="\n", rows="token", squash="sigmoid"
    ),
}
