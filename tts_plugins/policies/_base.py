"""The base class of a policy's parts, which gives them a form in JSON files."""

from __future__ import annotations

from typing import ClassVar

from tts_plugins._internal.config import Configured


class Part(Configured):
    """A configured part of a policy."""

    family: ClassVar[str] = "policies"
