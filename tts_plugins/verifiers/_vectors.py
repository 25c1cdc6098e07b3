"""Texts as vectors, asked for through the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tts_plugins._internal.values import is_number
from tts_plugins.errors import VerifierError
from tts_plugins.protocols import Model, Run
from tts_plugins.types import Problem

Vector = Sequence[float]


def embeds(model: Model) -> bool:
    """Whether a model gives vectors instead of texts: it says so by an attribute `embeds`."""
    return bool(getattr(model, "embeds", False))


async def vectors_of(run: Run, model: Model, texts: Sequence[str], who: str) -> list[Vector]:
    """A vector for each text, in one request.

    Raises:
        VerifierError: the model gave something else.
        BudgetExhausted, DeadlineExceeded, ModelError: they could not be had.
    """
    reply = await run.generate(model, Problem(tuple(texts)))
    found: Any = reply.generations[0].output
    if not isinstance(found, Sequence) or len(found) != len(texts):
        raise VerifierError(f"{who}: {model.name} gave no vector for each of {len(texts)} texts; is it for embeddings?")
    if not all(_is_vector(vector) for vector in found) or len({len(vector) for vector in found}) != 1:
        raise VerifierError(
            f"{who}: {model.name} gave vectors that are not of numbers, or not of one length: {found!r:.80}"
        )
    return list(found)


def _is_vector(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(is_number(x) and math.isfinite(x) for x in value)


def cut(text: str, limit: int) -> str:
    """The beginning of a text, of at most `limit` bytes of UTF-8; what UTF-8 cannot hold becomes a question mark."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def cosine(a: Vector, b: Vector) -> float:
    """The cosine of the angle between two vectors, from -1 to 1; 0 for vectors of different lengths, or of zeros."""
    if len(a) != len(b):
        return 0.0
    lengths = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
