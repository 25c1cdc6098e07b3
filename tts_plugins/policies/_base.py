"""The base class of a policy's parts, which gives them a form in JSON files; and what they were fitted to."""

from __future__ import annotations

from typing import ClassVar

from tts_plugins._internal.config import Configured


class Part(Configured):
    """A configured part of a policy."""

    family: ClassVar[str] = "policies"


def same_name(fitted: str | None, given: str | None) -> bool:
    """Return whether what is given may be what was fitted to, or either is not known.

    A replay counts as its model, and a provider's prefix says nothing of the model: "openai/small" is "small".
    """
    if fitted is None or given is None:
        return True
    return fitted in (given.removeprefix("replay of "), given.partition("/")[2])
