"""A process verifier that is trained on a model's own solutions, without human labels."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from tts_plugins._internal.config import check_count
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError, InvalidScore, ModelError, VerifierError
from tts_plugins.pools import Pool
from tts_plugins.protocols import Model, Run
from tts_plugins.selection import Aggregate, aggregate, check_aggregate
from tts_plugins.steps import By, steps_of
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._memo import Memory, prefix_keys
from tts_plugins.verifiers._model_calls import worst_text
from tts_plugins.verifiers.learned._saved_head import LearnedHead

if TYPE_CHECKING:
    from tts_plugins.verifiers.learned._features import Table

_ATTEMPTS = 4


class LearnedVerifier:
    """Scores each step by a head that was trained on rollouts of the user's own model (2408.03314, appendix D).

    Args:
        embedder: gives the vectors: `EmbeddingModel` or `LocalEmbeddingModel`, the same as in training.
        head: what a training found.
        aggregate: how step scores become one; the head's own if left out.
        by: how a text without steps is cut into them, see `tts_plugins.steps.split`; as in training.
        max_steps: steps of a candidate at most; more are an error of that candidate. Room is reserved for each.
        remember: vectors kept, so that what beams share is not asked for again.
        name: as it appears in traces.

    Raises:
        ConfigurationError: the embedder is another one than the head was trained with, or a field is out of range.
    """

    def __init__(
        self,
        embedder: Model,
        head: LearnedHead,
        *,
        aggregate: Aggregate | None = None,
        by: By | re.Pattern[str] = "paragraph",
        max_steps: int = 40,
        remember: int = 4096,
        name: str = "LearnedVerifier",
    ) -> None:
        if not isinstance(embedder, Model):
            raise ConfigurationError(f"{name}: embedder={embedder!r} is not a model; pass an EmbeddingModel")
        if embedder.name != head.embedding:
            raise ConfigurationError(
                f"{name}: it was trained on vectors of {head.embedding!r}, and embedder is {embedder.name!r}, whose "
                "mean something else; pass that one, or train it again"
            )
        check_aggregate(name, aggregate or head.aggregate)
        check_count(name, "max_steps", max_steps)
        check_count(name, "remember", remember, least=0)
        self.name, self.head, self.aggregate, self.by = name, head, aggregate or head.aggregate, by
        self.max_steps = max_steps
        self._embedder = embedder
        self._known = Memory[Sequence[float]](remember)

    def __repr__(self) -> str:
        return f"{self.name}({self._embedder.name})"

    @classmethod
    async def fit(
        cls,
        rollouts: Pool,
        embedder: Model,
        *,
        aggregate: Aggregate = "last",
        validation: float = 0.2,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> Self:
        """Train one; needs numpy. The same rollouts, vectors and seed give the same verifier.

        Args:
            rollouts: solutions whose `step_scores` are labels, as `tts-plugins rollouts` makes them.
            embedder: gives the vectors; a request is tried four times.
            aggregate: how step scores become one.
            validation: share of the problems that a head stops by; each problem is held out so by one of
                1 / `validation` heads, whose mean is the verifier's. Measure it on others still.
            seed: of the split and of the heads' first weights.
            progress: called with texts embedded and texts in all.
            settings: of the verifier.

        Raises:
            ConfigurationError: too few problems, or labels that are all the same.
            DataError: a record lacks steps or labels.
            ModelError: the vectors could not be had.
        """
        if not 0 < validation < 1:
            raise ConfigurationError(f"LearnedVerifier.fit: validation={validation!r} must be between 0 and 1")
        table = await labelled(rollouts, embedder, progress)
        about = {"model": rollouts.header.model, "dataset": rollouts.header.dataset, "problems": len(rollouts.problems)}
        head = LearnedHead.of(
            table, embedding=embedder.name, aggregate=aggregate, validation=validation, seed=seed, about=about
        )
        return cls(embedder, head, **settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the head as `.npz`, without pickles; the file appears whole or not at all."""
        self.head.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], embedder: Model, **settings: Any) -> Self:
        """Return the verifier in a file that `save` wrote.

        Raises:
            DataError: it is not a learned verifier, or of another version.
            ConfigurationError: the embedder is another one.
        """
        return cls(embedder, LearnedHead.load(path), **settings)

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """Return the bound of one request for each step, with the whole solution."""
        steps = self.max_steps if tokens is None else max(1, min(self.max_steps, tokens))
        text = f"{problem.text}\n\n{worst_text(tokens)}"
        return await self._embedder.bound(Problem((text,) * steps)) or Bound()

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """Return the probability, after each step, that a continuation ends right; and their aggregate.

        Raises:
            VerifierError: there are no steps or too many, no log-probabilities although it needs them, or no vectors.
        """
        from tts_plugins.verifiers.learned._features import rows, texts

        steps = [step.text for step in steps_of(candidate, self.by)]
        if not 0 < len(steps) <= self.max_steps:
            raise VerifierError(
                f"{self.name}: candidate {candidate.id} has {len(steps)} steps; from 1 to "
                f"max_steps={self.max_steps} can be scored"
            )
        if self.head.logprobs and not candidate.logprobs:
            raise VerifierError(
                f"{self.name}: candidate {candidate.id} has no log-probabilities, which it was trained with; set "
                "logprobs=True on the model, or train it on rollouts without them"
            )
        prompt = candidate.problem.text
        keys = prefix_keys(prompt, steps)
        vectors = self._known.prefix(keys)
        if missing := texts(prompt, steps)[len(vectors) :]:
            reply = await run.generate(self._embedder, Problem(tuple(missing)))
            fresh = self._checked(reply.generations[0].output, len(missing))
            for key, vector in zip(keys[len(vectors) :], fresh, strict=True):
                self._known.put(key, vector)
            vectors = [*vectors, *fresh]
        scores = self.head(rows(steps, vectors, candidate.logprobs if self.head.logprobs else None))
        return Score(value=aggregate(scores, self.aggregate), steps=scores, details={"aggregate": self.aggregate})

    def _checked(self, vectors: Any, count: int) -> Sequence[Sequence[float]]:
        found = vectors if isinstance(vectors, Sequence) else ()
        if len(found) != count or any(len(v) != self.head.size for v in found):
            length = len(found[0]) if found else 0
            raise InvalidScore(
                f"{self.name}: {len(found)} vectors of {length} numbers for {count} texts; it was trained on "
                f"vectors of {self.head.size}"
            )
        return found


async def labelled(rollouts: Pool, embedder: Model, progress: Callable[[int, int], None] | None = None) -> Table:
    """Return the features and labels of a pool of rollouts, with each text embedded once.

    Raises:
        DataError: a record lacks steps or labels.
        ModelError: the vectors could not be had in four attempts.
    """
    import tenacity

    from tts_plugins.verifiers.learned._features import table_of

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, ModelError) and e.retryable),
        stop=tenacity.stop_after_attempt(_ATTEMPTS), wait=tenacity.wait_random_exponential(max=10), reraise=True,
    )  # fmt: skip
    async def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        reply = await embedder.generate(Problem(tuple(texts)), [None])
        vectors: Sequence[Sequence[float]] = reply.generations[0].output
        return vectors

    return await table_of(rollouts, embed, progress)
