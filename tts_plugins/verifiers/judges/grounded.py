"""Check whether the claims of an answer are in the texts that it was given."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tts_plugins._internal.config import check_count, check_share
from tts_plugins._internal.values import once_made
from tts_plugins.answers import without_thoughts
from tts_plugins.budget import Bound
from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import LIMIT, Messages, grounded_messages, grounded_schema, make_key, problem_text
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Candidate, Generation, Problem, Score
from tts_plugins.verifiers._judge_replies import Unreadable, read_verdict
from tts_plugins.verifiers._memo import Once
from tts_plugins.verifiers._model_calls import Asker, shown, total, worst_text, worst_trouble
from tts_plugins.verifiers._vectors import Vector, cut, embeds, vectors_of
from tts_plugins.verifiers.similar import nearness

# A sentence ends with its mark and a blank (none follows in Chinese and Japanese), or with its line.
_SENTENCE = re.compile(r"[^\n]+?(?:[.!?…](?=\s)|[。！？]|(?=\n)|\Z)")
_MOST = 64  # sentences of an answer that are embedded one by one; the rest goes with the last of them
_FIELDS = ("context", "documents", "sources")


class Grounded:
    """Scores an answer by the share of its claims that the context supports; the feedback lists the others.

    Args:
        context: the text that an answer may draw on, or a function from the problem to it. Where left out:
            `problem.metadata["context"]`; for a chain's input the field `context`, `documents` or `sources`; else all
            of the problem's text, which holds what was retrieved in most prompts.
        model: a judge, which lists the claims and says of each whether the context supports it; or an `EmbeddingModel`,
            with which each sentence of the answer has to be near to one of the context: cheaper, local, and blind to
            what a sentence denies.
        threshold: of the cosine, with an `EmbeddingModel`. It depends on the model: try it on answers of your own.
        limit: bytes of an answer that are looked at.
        name: as it appears in traces.

    An answer that claims nothing ("I do not know") is grounded: where it is not wanted, put a check for it before this.

    Raises:
        ConfigurationError: a field is out of range; at the call, there is no context.
    """

    def __init__(
        self,
        context: str | Callable[[Problem], str] | None = None,
        *,
        model: Model,
        threshold: float = 0.8,
        limit: int = LIMIT,
        name: str = "Grounded",
    ) -> None:
        check_share(name, "threshold", threshold)
        check_count(name, "limit", limit, least=200)
        if context is not None and not isinstance(context, str) and not callable(context):
            raise ConfigurationError(f"{name}: context={context!r:.80} must be a text, or a function of the problem")
        self.name, self.threshold, self.limit = name, threshold, limit
        self._context, self._embeds = context, embeds(model)
        self._asker = Asker(model, name, schema=grounded_schema())
        self._once, self._vectors = Once[Score](), Once[list[Vector]]()

    @once_made
    def __repr__(self) -> str:
        return f"{self.name}({self._asker.model.name})"

    async def bound(self, problem: Problem, tokens: int | None) -> Bound:
        """One verdict and its repair; or the vectors of the context's sentences and of the answer's."""
        context, text = self._source(problem), worst_text(tokens, self.limit)
        if not self._embeds:
            return await self._asker.bound([self._ask(context, text, "x" * 8, t) for t in ("", worst_trouble())])
        size = -(-len(text) // _MOST)
        pieces = tuple(text[i : i + size] for i in range(0, len(text), size))
        asked = (tuple(sentences(context)), pieces)  # a request for each
        return total([await self._asker.model.bound(Problem(texts)) or Bound() for texts in asked])

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """The share of supported claims; `details["unsupported"]` lists the others.

        Raises:
            VerifierError: no verdict could be read, or there were no vectors.
        """
        text, context = without_thoughts(shown(candidate)).strip(), self._source(candidate.problem)
        if not text:
            return Score(value=0.0, feedback="the candidate is empty")
        key = make_key(run.seed, self.name, context, text)
        find = self._near if self._embeds else self._judged
        return (await self._once.get(run, key, lambda: find(run, context, text, key)))[0]

    async def _judged(self, run: Run, context: str, text: str, key: str) -> Score:
        (claims,), _ = await self._asker.ask_and_read(
            run, lambda trouble: self._ask(context, text, key, trouble), lambda generation: _claims(generation, key)
        )
        return _score(len(claims), [claim for claim, supported in claims if not supported])

    async def _near(self, run: Run, context: str, text: str, key: str) -> Score:
        model = self._asker.model
        known, _ = await self._vectors.get(run, context, lambda: vectors_of(run, model, sentences(context), self.name))
        said = sentences(cut(text, self.limit))
        said = [*said[: _MOST - 1], " ".join(said[_MOST - 1 :])] if len(said) > _MOST else said
        near = [nearness(vector, known) for vector in await vectors_of(run, model, said, self.name)]
        return _score(len(said), [s for s, value in zip(said, near, strict=True) if value < self.threshold])

    def _ask(self, context: str, text: str, key: str, trouble: str) -> Messages:
        return grounded_messages(context, text, key=key, limit=self.limit, trouble=trouble)

    def _source(self, problem: Problem) -> str:
        content: Any = problem.content
        fields = {**content, **problem.metadata} if isinstance(content, Mapping) else problem.metadata
        found = self._context(problem) if callable(self._context) else self._context
        if found is None:
            found = next((fields[name] for name in _FIELDS if _holds_any(fields.get(name))), None)
            found = problem_text(problem) if found is None else found
        try:
            text = found if isinstance(found, str) else _joined(found)
        except (ValueError, RecursionError) as error:  # it holds itself
            raise ConfigurationError(f"{self.name}: context={found!r:.80} cannot be read as text: {error}") from error
        if not text.strip():
            raise ConfigurationError(
                f"{self.name}: context={text!r} has no text; pass context=…, or put it into the problem's metadata as "
                "'context'"
            )
        return text


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without those that hold no letter or digit."""
    found = [match[0].strip() for match in _SENTENCE.finditer(text)]
    return [sentence for sentence in found if any(map(str.isalnum, sentence))] or [text.strip()]


def _holds_any(found: Any) -> bool:
    """Whether there is a context: an array has no truth of its own."""
    return found is not None and (len(found) > 0 if hasattr(found, "__len__") else bool(found))


def _joined(documents: Any) -> str:
    """The texts of retrieved documents: LangChain's have `page_content`; else as JSON."""
    if not isinstance(documents, list | tuple):
        return json.dumps(documents, ensure_ascii=False, default=str)
    texts = [d if isinstance(d, str) else getattr(d, "page_content", None) for d in documents]
    return "\n\n".join(
        t if isinstance(t, str) else json.dumps(d, ensure_ascii=False, default=str)
        for t, d in zip(texts, documents, strict=True)
    )


def _claims(generation: Generation, key: str) -> list[tuple[str, bool]]:
    listed = read_verdict(generation.text, key).get("claims")
    if not isinstance(listed, list):
        raise Unreadable("claims is not a list", listed)
    claims = list[tuple[str, bool]]()
    for each in listed:
        claim, supported = (each.get("claim"), each.get("supported")) if isinstance(each, dict) else (None, None)
        if not isinstance(claim, str) or not isinstance(supported, bool):
            raise Unreadable("a claim is not an object with a text and true or false", each)
        claims.append((claim, supported))
    return claims


def _score(count: int, unsupported: list[str]) -> Score:
    named = "; ".join(f"{claim:.200}" for claim in unsupported[:5])
    said = f"not supported by the context: {named}" if unsupported else ""
    value = 1.0 if count == 0 else 1 - len(unsupported) / count
    return Score(value=value, feedback=said, details={"claims": count, "unsupported": unsupported})
