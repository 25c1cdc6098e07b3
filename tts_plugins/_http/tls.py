"""One TLS context for all loops: to make one takes more time than a request."""

from __future__ import annotations

import functools
import importlib
import os
import ssl

from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConfigurationError

_VARIABLES = "SSL_CERT_FILE", "SSL_CERT_DIR"


@functools.cache
def tls_context() -> ssl.SSLContext:
    """What the OpenAI client trusts, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.

    Raises:
        ConfigurationError: the certificates there cannot be read.
    """
    try:
        return _context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        named = ", ".join(f"{name}={os.environ[name]!r}" for name in _VARIABLES if os.environ.get(name)) or "unset"
        raise ConfigurationError(
            f"the certificates to trust cannot be read ({type(error).__name__}: {error}); check SSL_CERT_FILE and "
            f"SSL_CERT_DIR ({named})"
        ) from error


def _context() -> ssl.SSLContext:
    for name in ("httpx2", "httpx"):  # openai 3 brings the one, openai 2 the other
        try:
            context: ssl.SSLContext = importlib.import_module(name).create_ssl_context()
        except ImportError:
            continue
        break
    else:
        context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def tls_ready() -> None:
    """Make the context beside the loop, which could keep no deadline meanwhile."""
    if not tls_context.cache_info().currsize:
        await in_thread(tls_context)
