"""How near a text is to one that is known to be good."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tts_plugins._internal.config import check_count
from tts_plugins.answers import without_thoughts
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._model_calls import worst_text
from tts_plugins.verifiers._vectors import Vector, cosine, cut, embeds, vectors_of

References = str | Sequence[str]


class Similar:
    """Scores a candidate by the cosine between its vector and that of the nearest reference; below 0 counts as 0.

    Args:
        reference: a text, texts, or a function from the problem to them; where left out, what
            `problem.metadata["reference"]` holds.
        model: an `EmbeddingModel`.
        limit: bytes of a text at most; what is longer is cut at its end.

    What a cosine means depends on the embedding model: look at pairs of your own before you set a threshold. A text
    without any words scores 0, and is not embedded.

    Raises:
        ConfigurationError: the model gives no vectors; at the call, the problem has no reference.
    """

    name = "Similar"

    def __init__(
        self,
        reference: References | Callable[[Problem], References] | None = None,
        *,
        model: Model,
        limit: int = 8_000,
    ) -> None:
        if not embeds(model):
            raise ConfigurationError(f"Similar: model={model!r} gives no vectors; pass an EmbeddingModel")
        check_count("Similar", "limit", limit)
        self._reference, self._model, self._limit = reference, model, limit

    def __repr__(self) -> str:
        return f"Similar({self._model.name})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """One request with the candidate and the references."""
        texts = (self._cut(worst_text(tokens, self._limit)), *self._references(problem))
        return await self._model.bound(Problem(texts)) or Bound()

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The largest cosine, from 0 to 1.

        Raises:
            VerifierError: the model gave no vectors.
        """
        said = self._cut(without_thoughts(candidate.text).strip())
        if not said:
            return Score(value=0.0, feedback="the candidate is empty")
        own, *others = await vectors_of(run, self._model, (said, *self._references(candidate.problem)), self.name)
        return Score(value=nearness(own, others))

    def _references(self, problem: Problem) -> tuple[str, ...]:
        given = self._reference(problem) if callable(self._reference) else self._reference
        given = problem.metadata.get("reference") if given is None else given
        texts = (given,) if isinstance(given, str) else tuple(given or ())
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigurationError(
                f"Similar: reference={given!r:.80} must be a text to compare with; pass reference=…, or put it in the "
                "problem's metadata as 'reference'"
            )
        return tuple(map(self._cut, texts))

    def _cut(self, text: str) -> str:
        return cut(text, self._limit)


def nearness(vector: Vector, others: Sequence[Vector]) -> float:
    """The largest cosine to one of the others, from 0 to 1; float error may not lift it above."""
    return min(1.0, max(0.0, *(cosine(vector, other) for other in others)))
