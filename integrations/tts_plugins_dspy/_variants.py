"""The language model, or the program, that a rung of a ladder asks in the place of a candidate's own."""

from __future__ import annotations

from typing import Any, Protocol

import dspy

from tts_plugins.adapters import VARIANT
from tts_plugins.errors import ConfigurationError
from tts_plugins_dspy._calls.interception import cover


class _Sample(Protocol):
    module: Any


def varied(sample: _Sample, name: str) -> dict[str, Any]:
    """Return the settings with the language model that a rung of a ladder asks; a program of its own stands in.

    Raises:
        ConfigurationError: there is no language model whose name or effort could be set.
    """
    variant = VARIANT.get()
    if variant is None:
        return {}
    given, own = variant.model, getattr(sample.module, "lm", None)
    if given is not None and not isinstance(given, str | dspy.BaseLM):
        sample.module, given = given, None  # a whole program
        if variant.effort is None:
            return {}
    lm = given if isinstance(given, dspy.BaseLM) else own or dspy.settings.get("lm")
    if lm is None:
        raise ConfigurationError(
            f"{name}: a rung asks model={variant.model!r}, effort={variant.effort!r}, and there is no "
            "language model to ask so; call dspy.configure(lm=...), or give the rung a dspy.LM"
        )
    lm = lm.copy(**variant.arguments) if variant.arguments else lm
    cover(type(lm))
    if hasattr(sample.module, "with_lm"):
        sample.module = sample.module.with_lm(lm)
    return {"lm": lm}
