"""Start the server, on one process or several, and end it so that solves end, or are settled."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from tts_plugins.errors import ConfigurationError
from tts_plugins.server.app import Server
from tts_plugins.server.guard import Guard
from tts_plugins.server.settings import ServerSettings

_BACKLOG = 4096
# Longer than clients and gateways keep an idle connection (httpx 5 s, aiohttp 15 s, nginx 60 s), so that it is they who
# close it: a request that meets a connection which the server is just closing fails.
_KEEP_ALIVE = 75
_VARIABLE = "TTS_PLUGINS_SERVER_SETTINGS"


def serve(
    settings: ServerSettings,
    *,
    workers: int = 1,
    sock: socket.socket | None = None,
    progress: Callable[[int, int], None] | None = None,
    starting: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT: then no new request is taken, and those that run have `grace` seconds.

    Args:
        workers: processes; they share the account of spending, and each has its own viewer.
        sock: a socket that listens already.
        progress: called with bytes done and bytes in all while the embedded model's weights are fetched.
        starting: called once the settings are found to be right.

    Raises:
        ConfigurationError: a setting is wrong, or the address is taken.
        WeightsError: the embedded model cannot be had.
        StoreFailed: the account of spending cannot be opened.
    """
    sock = sock or bind(settings)
    options: dict[str, Any] = {
        "access_log": False, "log_level": "warning", "server_header": False, "date_header": False,
        "timeout_graceful_shutdown": max(1, round(settings.grace)), "backlog": _BACKLOG,
        "timeout_keep_alive": _KEEP_ALIVE, "lifespan": "on", "ws": "none",
        "proxy_headers": False,
    }  # fmt: skip
    server = Server(settings, progress)  # what is wrong with the settings is said here, once for all workers
    if starting is not None:
        starting()
    if workers == 1:
        server.upstream.start()
        _Server(uvicorn.Config(server.application(), **options)).run(sockets=[sock])
        return
    del server
    os.environ[_VARIABLE] = settings.to_json()
    with tempfile.TemporaryDirectory(prefix="tts-plugins-metrics-") as folder:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        config = uvicorn.Config("tts_plugins.server.run:worker", factory=True, workers=workers, **options)
        Multiprocess(config, sockets=[sock]).run()


def worker() -> Guard:
    """Return the application of one worker process."""
    return Server(ServerSettings.from_json(os.environ[_VARIABLE])).application()


def bind(settings: ServerSettings) -> socket.socket:
    """Return a listening socket for the settings' address.

    Raises:
        ConfigurationError: the address is taken, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP: asyncio sets TCP_NODELAY on such only, and else an answer waits 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
        sock.listen(_BACKLOG)  # so that who comes before all is ready waits, and is not refused
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"serve: {settings.host}:{settings.port} cannot be listened on ({error.strerror}); choose another --port"
        ) from error
    sock.set_inheritable(True)
    return sock


class _Server(uvicorn.Server):
    """Ends the viewers' streams first, which would else last as long as the grace does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        close = getattr(self.config.app, "close", None)
        if close is not None:
            close()
        super().handle_exit(sig, frame)
