"""Process reward models in this process, by transformers and torch (the extra `transformers`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tts_plugins._concurrency import forks
from tts_plugins._internal.threads import in_thread
from tts_plugins._internal.values import once_made
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run
from tts_plugins.selection import Aggregate
from tts_plugins.steps import By
from tts_plugins.types import Candidate, Generation, Problem, Reply, Score, Usage
from tts_plugins.verifiers.process._base import ProcessReward
from tts_plugins.verifiers.process._reward_families import RewardFamily

if TYPE_CHECKING:
    from tts_plugins.verifiers.process._reward_model import RewardModel


class ProcessVerifierTransformers(ProcessReward):
    """Scores each step with a process reward model that is loaded here.

    Args:
        model: a folder as `save_pretrained` writes it, or a name on the Hugging Face Hub. Weights are read from
            safetensors only, never from pickles; no code that comes with a model is run.
        family: "qwen" (Qwen2.5-Math-PRM: a head of two classes, read at each `<extra_0>`), "math-shepherd" (the logits
            of "+" and "-" at each step tag "ки"), "token" (a reward for each token, read at line ends), or a
            `RewardFamily` of your own. A head's layers are the checkpoint's `score.*` or `v_head.*`.
        aggregate: how step scores become one: which is best depends on the model, see `docs/judges.md`.
        by: how a text without steps is cut into them, see `tts_plugins.steps.split`.
        device: as torch names it; a GPU if there is one, else the CPU.
        dtype: as torch names it ("bfloat16"); that of the checkpoint if left out.
        concurrency: candidates computed side by side.
        name: as it appears in traces.

    The model is loaded with the first score, or by `load()`. It computes on a thread of its own; a call counts its
    tokens and costs nothing.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        family: str | RewardFamily = "qwen",
        aggregate: Aggregate = "last",
        by: By | re.Pattern[str] = "paragraph",
        device: str | None = None,
        dtype: str | None = None,
        concurrency: int = 1,
        name: str = "ProcessVerifierTransformers",
    ) -> None:
        super().__init__(name, family, aggregate, by)
        if not str(model).strip():
            raise ConfigurationError(f"{name}: model={model!r} must be a folder, or a name on the Hugging Face Hub")
        self._model = _Local(model, self.family, device, dtype, Limits(concurrency=concurrency))

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self._model.name})"

    def load(self) -> None:
        """Load the model now, if it is not loaded yet. It blocks meanwhile.

        Raises:
            MissingExtraError: transformers, torch or safetensors is not installed.
            WeightsError: there are no such weights, they are pickles, or they are not those of such a model.
        """
        self._model.load()

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of one call with the whole solution."""
        return await self._model.bound(Problem(self._worst(problem, tokens)))

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return a score for each step, and their aggregate.

        Raises:
            VerifierError: the candidate has no steps, or is longer than the model can read.
            MissingExtraError, WeightsError: as for `load`.
        """
        shown = self._shown(candidate)
        problem = Problem(shown.text, metadata={"ends": shown.ends})
        reply = await run.generate(self._model, problem)
        # The head's own numbers: two classes, or one reward.
        rows = reply.generations[0].output
        family = replace(self.family, squash="softmax" if len(rows[0]) > 1 else "sigmoid", rows="step")
        return self._score(shown, rows, family=family)


class _Local:
    """The loaded model as a `Model`, so that its calls are limited, counted and traced as every call is."""

    batch = 1

    def __init__(
        self, model: str | Path, family: RewardFamily, device: str | None, dtype: str | None, limits: Limits
    ) -> None:
        self.name, self.limits = Path(model).name, limits
        self._where, self._family, self._device, self._dtype = model, family, device, dtype
        self._lock = forks.lock()
        self._loaded: RewardModel | None = None

    def load(self) -> RewardModel:
        """Return the model, loaded once."""
        with self._lock:
            if self._loaded is None:
                from tts_plugins.verifiers.process._reward_model import RewardModel

                self._loaded = RewardModel.load(self._where, self._family, device=self._device, dtype=self._dtype)
            return self._loaded

    async def bound(self, problem: Problem) -> Bound:
        """Return the text's bytes: a tokeniser makes at most one token of each, and a few for its beginning and end."""
        return Bound(prompt_tokens=len(problem.text.encode("utf-8", "replace")) + 8, usd=0.0)

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        """Return the rows at the ends that the problem names."""
        rows, tokens = await in_thread(lambda: self.load().rows(problem.text, problem.metadata["ends"]))
        usage = Usage(calls=1, prompt_tokens=tokens)
        return Reply(generations=(Generation(text=f"{len(rows)} rows", output=rows),), usage=usage)
