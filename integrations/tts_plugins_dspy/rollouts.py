"""Distinct and replayable samples.

DSPy's cache answers the same call with the same text, at any temperature; `rollout_id` keeps calls apart, is part of
the cache's key, and is not sent. An adapter around the user's own puts a candidate's number into it: predictors and
language models stay as they are, whichever and however many a program has. In the same place a candidate that betters
earlier ones is shown them: every predictor of the program has a further input field then, as under `dspy.Refine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import dspy

from tts_plugins.adapters import Attempts

HINT = "hint_"
"""The input field that carries earlier attempts; `dspy.Refine` calls its own so."""


class RolloutAdapter:
    """The user's adapter, for one candidate. `isinstance` finds in it what it wraps.

    Args:
        inner: the adapter.
        sample: the candidate's number: of the path to it, where searches are nested.
        temperature: for calls that set none, or 0.
        attempts: earlier candidates that this one is to better; those of searches around it are shown too.
    """

    def __init__(self, inner: Any, sample: int, temperature: float, *, attempts: Attempts | None = None) -> None:
        outer = isinstance(inner, RolloutAdapter)
        self.inner: Any = inner.inner if outer else inner
        self.sample, self._temperature, self.attempts = sample, temperature, attempts
        self._hints: tuple[str, ...] = (*(inner._hints if outer else ()), *([attempts.text()] if attempts else ()))

    @property
    def __class__(self) -> type[Any]:
        return type(self.inner)

    @__class__.setter
    def __class__(self, value: type[Any]) -> None:
        raise TypeError("an adapter of a candidate cannot become another one")

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not there yet: a copy is under way
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> Any:
        """The adapter's own, apart from other candidates."""
        return self.inner(lm, self.apart(lm, lm_kwargs), *self._hinted(signature, demos, inputs))

    async def acall(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> Any:
        """`__call__`, asynchronous."""
        return await self.inner.acall(lm, self.apart(lm, lm_kwargs), *self._hinted(signature, demos, inputs))

    def _hinted(
        self, signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> tuple[Any, list[Any], dict[str, Any]]:
        if not self._hints:
            return signature, demos, inputs
        field = dspy.InputField(desc="Earlier attempts of the whole program, and what was said of them")
        return signature.append(HINT, field), demos, {**inputs, HINT: "\n\n".join(self._hints)}

    def apart(self, lm: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call, with the candidate's `rollout_id`, and a temperature at which samples differ."""
        if getattr(lm, "supports_decision_requests", False) is True:
            return dict(asked)  # it takes no settings
        set_before = {**getattr(lm, "kwargs", {}), **asked}
        # DSPy's cache knows a model by its name: servers of one name would answer for each other.
        path = (self.sample, set_before.get("rollout_id"), set_before.get("api_base"))
        changes: dict[str, Any] = {"rollout_id": derive(*(part for part in path if part is not None))}
        if not set_before.get("temperature"):
            changes["temperature"] = self._temperature
        return {**asked, **changes}


def derive(*path: object) -> int:
    """A number of 31 bits that depends on the path, and on nothing else."""
    digest = hashlib.blake2b("/".join(map(str, path)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
