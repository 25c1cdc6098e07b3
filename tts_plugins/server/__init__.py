"""Test-time scaling for any client: a server that speaks OpenAI's protocol. It needs the extra `server`.

    from tts_plugins.server import ServerSettings, create_app, serve

`tts-plugins serve` starts it; `create_app(settings)` is an ASGI application for a server of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tts_plugins.server.settings import ServerSettings

if TYPE_CHECKING:
    from tts_plugins.server.app import create_app
    from tts_plugins.server.run import bind, serve

__all__ = ["ServerSettings", "bind", "create_app", "serve"]
_HOMES = {"create_app": "app", "bind": "run", "serve": "run"}


def __getattr__(name: str) -> Any:
    # Starlette, uvicorn and others are optional, and loaded with what needs them.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"tts_plugins.server.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("tts_plugins"):
            raise
        from tts_plugins.errors import MissingExtraError

        raise MissingExtraError(f"serving needs {error.name}: pip install 'tts-plugins[server]'") from error
