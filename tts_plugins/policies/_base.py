"""Base of what a policy is made of, so that a file of it can be read back."""

from __future__ import annotations

from typing import ClassVar

from tts_plugins._internal.config import Configured


class Part(Configured):
    """A configured part of a policy."""

    family: ClassVar[str] = "policies"
