"""Test-time scaling for any client: a server that speaks OpenAI's protocol. It needs the extra `server`.

    from tts_plugins.server import ServerSettings, create_app, serve

`tts-plugins serve` starts it; `create_app(settings)` is an ASGI application for a server of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tts_plugins.server.settings import ServerSettings

if TYPE_CHECKING:
    from tts_plugins.server.app import create_app
    from tts_plugins.server.run import serve

__all__ = ["ServerSettings", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    # Starlette and uvicorn are optional, and loaded with what needs them.
    if name in ("create_app", "serve"):
        import importlib

        module = importlib.import_module(f"tts_plugins.server.{'app' if name == 'create_app' else 'run'}")
        return getattr(module, name)
    raise AttributeError(name)
