"""Votes for answers in free words that mean the same, merged: mutual entailment by a model, or embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakKeyDictionary

from tts_plugins._internal.config import check_count, check_share
from tts_plugins.answers import Answer, extract, marked, without_thoughts
from tts_plugins.errors import ConfigurationError, SolveCancelled, TTSError
from tts_plugins.prompts import entailment_messages, entailment_schema, make_key, problem_text
from tts_plugins.protocols import Model, Run
from tts_plugins.selection import RelatedKey, Relation
from tts_plugins.types import Generation, Problem
from tts_plugins.verifiers._judge_replies import Unreadable, read_verdict
from tts_plugins.verifiers._model_calls import Asker
from tts_plugins.verifiers._vectors import cosine, cut, embeds, vectors_of

_RELATIONS = ("entailment", "neutral", "contradiction")


def free_text(text: str) -> Answer | None:
    """The answer that a text names with a marker, else all of it outside of thoughts."""
    if marked(text):
        return extract(text)
    said = " ".join(without_thoughts(text).split())
    return Answer(said.casefold(), said) if said else None


class SemanticGroups:
    """Reads answers, and lets those that mean the same vote together: `solve(..., answer=SemanticGroups(model))`.

    Args:
        model: an `EmbeddingModel`: answers mean the same where the cosine of their vectors reaches `threshold`. Any
            other model is asked whether each answer follows from the other, given the problem (Kuhn et al. 2023,
            2302.09664; Farquhar et al. 2024); `max_tokens` of about 100 will do.
        embeddings: whether the model gives vectors, for one that does not say so itself by an attribute `embeds`.
        read: from a text to its answer; by default what it names with a marker, else all of it.
        threshold: of the cosine, from 0 to 1. It depends on the embedding model: try it on pairs of your own.
        most: distinct answers of a run that are compared with each other; further ones only vote for themselves.
        limit: bytes of each answer that the model sees.

    Comparisons are paid from the run's budget: up to two calls for each pair of distinct answers, or one embedding for
    each distinct answer. A comparison that the budget or the time does not allow, or that fails, counts as "different",
    and `Result.warnings` says so. Answers merge only where each means the same as each other one, so the order of
    arrival changes nothing. `selection.semantic_entropy` tells how much the groups disagree.

    Raises:
        ConfigurationError: a field is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        embeddings: bool | None = None,
        read: Callable[[str], str | None] = free_text,
        threshold: float = 0.9,
        most: int = 16,
        limit: int = 2000,
    ) -> None:
        if not callable(read):
            raise ConfigurationError(f"SemanticGroups: read={read!r} cannot be called; pass a function of a text")
        check_share("SemanticGroups", "threshold", threshold)
        check_count("SemanticGroups", "most", most, least=2)
        check_count("SemanticGroups", "limit", limit, least=200)
        self._asker = Asker(model, "SemanticGroups", schema=entailment_schema())
        self._embeds = embeds(model) if embeddings is None else embeddings
        self._read, self._threshold, self._most, self._limit = read, threshold, most, limit
        self._runs: WeakKeyDictionary[Run, _Known] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"SemanticGroups({self._asker.model.name})"

    def __call__(self, text: str) -> str | None:
        """The answer in a text."""
        return self._read(text)

    async def relate(self, run: Run, key: str, raw: str, problem: Problem) -> str:
        """The key, compared with those that were seen in the run before."""
        known = self._runs.setdefault(run, _Known())
        # No lock is held while a comparison waits for the budget: a task that waits for the lock might hold the budget.
        if key not in known.raws and len(known.raws) < self._most:
            others = dict(known.raws)
            known.raws[key] = raw
            try:
                await self._compare(run, problem, key, others, known)
            except BaseException as error:
                if isinstance(error, SolveCancelled) or not isinstance(error, TTSError):
                    del known.raws[key]  # the next candidate with this answer compares it
                    raise
                # The candidate is paid for, and votes for itself.
                run.note("doubt", said=f"some answers were not compared by meaning: {type(error).__name__}: {error}")
        return RelatedKey(key, known.relation)

    async def _compare(self, run: Run, problem: Problem, key: str, others: Mapping[str, str], known: _Known) -> None:
        if self._embeds:
            known.vectors[key] = await self._vector(run, known.raws[key])
            for other, vector in known.vectors.items():
                if other != key and cosine(known.vectors[key], vector) >= self._threshold:
                    known.relation.add(key, other)
            return

        async def compared(other: str) -> None:
            # In the order of the keys, so that the requests do not depend on the order of arrival.
            first, second = (known.raws[k] if k in known.raws else others[k] for k in sorted((key, other)))
            if await self._follows(run, problem, first, second) and await self._follows(run, problem, second, first):
                known.relation.add(key, other)

        done = await asyncio.gather(*(compared(other) for other in others), return_exceptions=True)
        failed = [error for error in done if isinstance(error, BaseException)]
        for error in sorted(failed, key=lambda e: isinstance(e, TTSError)):
            raise error  # a defect or a cancellation, before what only keeps answers apart

    async def _vector(self, run: Run, text: str) -> Sequence[float]:
        (vector,) = await vectors_of(run, self._asker.model, [cut(text, self._limit)], "SemanticGroups")
        return tuple(vector)

    async def _follows(self, run: Run, problem: Problem, first: str, second: str) -> bool:
        """Whether the second answer follows from the first, as the model says."""
        question = problem_text(problem)
        key = make_key(run.seed, "SemanticGroups", question, first, second)
        verdicts, _ = await self._asker.ask_and_read(
            run,
            lambda trouble: entailment_messages(question, first, second, key=key, limit=self._limit, trouble=trouble),
            lambda generation: _entails(generation, key),
        )
        return verdicts[0]


class _Known:
    """The distinct answers of one run, by their keys: as they were written, and their vectors."""

    def __init__(self) -> None:
        self.raws: dict[str, str] = {}
        self.vectors: dict[str, Sequence[float]] = {}
        self.relation = Relation()


def _entails(generation: Generation, key: str) -> bool:
    said = read_verdict(generation.text, key).get("relation")
    if not isinstance(said, str) or said.strip().casefold() not in _RELATIONS:
        raise Unreadable("relation must be 'entailment', 'neutral' or 'contradiction'", said)
    return said.strip().casefold() == "entailment"
