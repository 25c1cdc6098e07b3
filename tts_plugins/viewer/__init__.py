"""The page on which solves are watched and read: live from a server, or of traces that were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tts_plugins.viewer.solves import Solves

if TYPE_CHECKING:
    from tts_plugins.viewer.app import Viewer

__all__ = ["Solves", "Viewer"]


def __getattr__(name: str) -> Any:
    if name == "Viewer":  # Starlette is optional
        from tts_plugins.viewer.app import Viewer

        return Viewer
    raise AttributeError(name)
