"""One TLS context for all loops: to make one takes more time than a request."""

from __future__ import annotations

import functools
import importlib
import ssl


@functools.cache
def tls_context() -> ssl.SSLContext:
    """What the OpenAI client trusts, `SSL_CERT_FILE` and `SSL_CERT_DIR` included."""
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
