"""The base class of a policy's parts, which gives them a form in JSON files; and what they were fitted to."""

from __future__ import annotations

from typing import ClassVar

from tts_plugins._internal.config import Configured


class Part(Configured):
    """A configured part of a policy."""

    family: ClassVar[str] = "policies"


def name_of(verifier: object) -> str | None:
    """Return a verifier's name; for recorded scores, the name of the verifier that gave them."""
    name: str | None = getattr(verifier, "stands_for", None) or getattr(verifier, "name", None)
    return name


def same_name(fitted: str | None, given: str | None) -> bool:
    """Return whether what is given may be what was fitted to, or either is not known. A replay counts as its model."""
    return None in (fitted, given) or str(given).removeprefix("replay of ") == fitted
